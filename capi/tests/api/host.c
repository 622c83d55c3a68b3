#define _GNU_SOURCE
#include "host.h"

#include <poll.h>
#include <time.h>

const uint8_t ONE[16] = { 1 }, TWO[16] = { 2 }, NONE[16] = { 9 };

void ask_ids(void *user, const ocbus_t *ocbus, const ocbus_query *query)
{
    struct host *host = user;
    uint64_t mids[8];
    ocbus_row row;
    size_t i;

    CHECK(pthread_equal(host->thread, pthread_self()));
    CHECK(strcmp(query->cn, "bob") == 0 && query->id != 0 && query->limit_ms > 0);
    FAILS(OCBUS_ERROR_BUSY, "callback", ocbus_dispatch(ocbus));
    switch (query->what) {
    case OCBUS_WHAT_FOLDER:
        if (query->mailbox == NULL) {
            /* What is above the top-level folders: asked behind a resync. This host has none. */
            CHECK(query->storage_name == NULL && strcmp(query->sogo_uri, "sogo://bob:bob@mail/") == 0);
            OK(ocbus_answer_unknown(ocbus, query->id));
            break;
        }
        host->folders++;
        CHECK(strcmp(query->sogo_uri, "sogo://bob:bob@mail/folderINBOX/") == 0);
        CHECK(strcmp(query->mailbox, "INBOX") == 0 && strcmp(query->storage_name, "INBOX") == 0);
        CHECK(query->messages == NULL && query->message_count == 0 && query->columns == NULL);
        if (host->how == UNKNOWN) {
            OK(ocbus_answer_unknown(ocbus, query->id));
            break;
        }
        OK(ocbus_answer_folder(ocbus, query->id, INBOX));
        break;
    case OCBUS_WHAT_MESSAGES:
        host->messages++;
        CHECK(query->message_count == 1 && query->messages[0].uid > 0 && query->folder == INBOX);
        CHECK(strncmp(query->messages[0].sogo_uri, "sogo://bob:bob@mail/folderINBOX/", 32) == 0);
        CHECK(strstr(query->messages[0].sogo_uri, ".eml") != NULL);
        host->kept = query->id;
        host->kept_uid = query->messages[0].uid;
        if (host->how == AT_ONCE) {
            for (i = 0; i < query->message_count; i++)
                mids[i] = 1 + ((uint64_t)query->messages[i].uid << 32);
            OK(ocbus_answer_messages(ocbus, query->id, mids, query->message_count));
        } else if (host->how == FAILED) {
            OK(ocbus_answer_failed(ocbus, query->id));
        }
        break;
    case OCBUS_WHAT_ROW:
        host->rows++;
        CHECK(memcmp(query->session, ONE, 16) == 0 && query->handle == 0x32);
        CHECK(query->table_kind == OCBUS_TABLE_CONTENTS && query->folder == INBOX && query->message != 0);
        CHECK(query->column_count == 1 && query->columns[0] == 0x0e060040);
        memset(&row, 0, sizeof(row));
        row.data = (const uint8_t *)"\0\0\0\0\0\x5e\x3c\xdb\x01";
        row.data_octets = 9;
        OK(ocbus_answer_row(ocbus, query->id, &row));
        break;
    default:
        CHECK(!"a question that this version does not have");
    }
}

void log_line(void *user, int level, const char *line)
{
    struct host *host = user;

    CHECK(pthread_equal(host->thread, pthread_self()));
    CHECK(level >= OCBUS_LOG_ERROR && level <= OCBUS_LOG_DEBUG);
    CHECK(strlen(line) > 0 && strchr(line, '\n') == NULL);
    host->lines++;
}

void answered(void *user, const ocbus_t *ocbus, uint64_t wait, const uint8_t *session,
                     const ocbus_wait_answer *answer)
{
    struct host *host = user;

    CHECK(pthread_equal(host->thread, pthread_self()));
    CHECK(session[0] == 1 || session[0] == 2);
    FAILS(OCBUS_ERROR_BUSY, "callback", ocbus_dispatch(ocbus));
    FAILS(OCBUS_ERROR_BUSY, "callback", ocbus_destroy((ocbus_t *)ocbus));
    host->answers++;
    host->last_wait = wait;
    host->last = *answer;
}

ocbus_t *create(struct host *host, const char *configuration)
{
    ocbus_options *options = ocbus_options_new();
    ocbus_t *ocbus = NULL;

    memset(host, 0, sizeof(*host));
    host->thread = pthread_self();
    OK(ocbus_options_read(options, configuration));
    OK(ocbus_options_set_ids(options, ask_ids, host));
    OK(ocbus_options_set_log(options, OCBUS_LOG_DEBUG, log_line, host));
    OK(ocbus_create(options, &ocbus));
    ocbus_options_free(options);
    CHECK(ocbus != NULL);
    return ocbus;
}

bool readable(const ocbus_t *ocbus, int limit_ms)
{
    struct pollfd polled;

    polled.fd = ocbus_fd(ocbus);
    polled.events = POLLIN;
    return poll(&polled, 1, limit_ms) == 1;
}

/* Dispatches until `*count` is `wanted`, 20 s at most. */
void until(const ocbus_t *ocbus, const int *count, int wanted)
{
    time_t end = time(NULL) + 20;

    while (*count < wanted) {
        CHECK(time(NULL) < end);
        readable(ocbus, 1000);
        OK(ocbus_dispatch(ocbus));
    }
    CHECK(*count == wanted);
}

ocbus_statistics statistics(const ocbus_t *ocbus)
{
    ocbus_statistics now;

    now.size = sizeof(now);
    OK(ocbus_statistics_read(ocbus, &now));
    CHECK(now.size == sizeof(now));
    return now;
}

void tell(const ocbus_t *ocbus, uint32_t uid)
{
    OK(ocbus_tell_new_mail(ocbus, "Bob", "INBOX", '/', uid, 42, -1));
}

/* Parks a wait that must not be answered at once. */
uint64_t park(const ocbus_t *ocbus, const uint8_t *session, struct host *host)
{
    ocbus_wait_answer answer;
    uint64_t wait;

    OK(ocbus_wait_park(ocbus, session, answered, host, &wait, &answer));
    CHECK(wait != 0 && answer.outcome == 0);
    return wait;
}

/* Parks a wait that must be answered at once. */
void at_once(const ocbus_t *ocbus, const uint8_t *session, uint32_t outcome, uint32_t result, uint32_t flags)
{
    ocbus_wait_answer answer;
    uint64_t wait;

    OK(ocbus_wait_park(ocbus, session, answered, NULL, &wait, &answer));
    CHECK(wait == 0 && answer.outcome == outcome && answer.result == result && answer.flags == flags);
}

/* Takes all. */
size_t take(const ocbus_t *ocbus, const uint8_t *session, uint8_t *buffer, size_t size)
{
    size_t written, replies;
    bool pending;

    OK(ocbus_take(ocbus, session, buffer, size, &written, &pending, &replies));
    CHECK(!pending);
    return written;
}
