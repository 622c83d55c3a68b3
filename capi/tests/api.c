/* Every function of ocbus.h, as it should be used and as it should not. Run by tests/programs.rs, under valgrind too. */
#define _GNU_SOURCE
#include <ocbus.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition,         \
                   ocbus_last_error());                                                            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* The call fails with this status, and so says the thread's last error, which mentions a word. */
#define FAILS(status, word, call)                                                                  \
    do {                                                                                           \
        CHECK((call) == (status));                                                                 \
        CHECK(ocbus_last_status() == (status));                                                    \
        CHECK(strstr(ocbus_last_error(), (word)) != NULL);                                         \
    } while (0)

#define OK(call) CHECK((call) == OCBUS_OK)

#define INBOX UINT64_C(0x3412000000000001)
#define ALL_TYPES 0x007e

static const uint8_t ONE[16] = { 1 }, TWO[16] = { 2 }, NONE[16] = { 9 };

/* ---- a host -------------------------------------------------------------------------------------------------- */

enum how { AT_ONCE, LATER, NEVER, FAILED, UNKNOWN };

struct host {
    enum how how;
    pthread_t thread;
    int folders, messages, rows, lines;
    uint64_t kept;          /* the last question that was not answered */
    uint32_t kept_uid;
    int answers;            /* of waits */
    uint64_t last_wait;
    ocbus_wait_answer last;
    bool nested;
};

static void ask_ids(void *user, const ocbus_t *ocbus, const ocbus_query *query)
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

static void log_line(void *user, int level, const char *line)
{
    struct host *host = user;

    CHECK(pthread_equal(host->thread, pthread_self()));
    CHECK(level >= OCBUS_LOG_ERROR && level <= OCBUS_LOG_DEBUG);
    CHECK(strlen(line) > 0 && strchr(line, '\n') == NULL);
    host->lines++;
}

static void answered(void *user, const ocbus_t *ocbus, uint64_t wait, const uint8_t *session,
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

static ocbus_t *create(struct host *host, const char *configuration)
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

static bool readable(const ocbus_t *ocbus, int limit_ms)
{
    struct pollfd polled;

    polled.fd = ocbus_fd(ocbus);
    polled.events = POLLIN;
    return poll(&polled, 1, limit_ms) == 1;
}

/* Dispatches until `*count` is `wanted`, 20 s at most. */
static void until(const ocbus_t *ocbus, const int *count, int wanted)
{
    time_t end = time(NULL) + 20;

    while (*count < wanted) {
        CHECK(time(NULL) < end);
        readable(ocbus, 1000);
        OK(ocbus_dispatch(ocbus));
    }
    CHECK(*count == wanted);
}

static ocbus_statistics statistics(const ocbus_t *ocbus)
{
    ocbus_statistics now;

    now.size = sizeof(now);
    OK(ocbus_statistics_read(ocbus, &now));
    CHECK(now.size == sizeof(now));
    return now;
}

static void tell(const ocbus_t *ocbus, uint32_t uid)
{
    OK(ocbus_tell_new_mail(ocbus, "Bob", "INBOX", '/', uid, 42, -1));
}

/* Parks a wait that must not be answered at once. */
static uint64_t park(const ocbus_t *ocbus, const uint8_t *session, struct host *host)
{
    ocbus_wait_answer answer;
    uint64_t wait;

    OK(ocbus_wait_park(ocbus, session, answered, host, &wait, &answer));
    CHECK(wait != 0 && answer.outcome == 0);
    return wait;
}

/* Parks a wait that must be answered at once. */
static void at_once(const ocbus_t *ocbus, const uint8_t *session, uint32_t outcome, uint32_t result, uint32_t flags)
{
    ocbus_wait_answer answer;
    uint64_t wait;

    OK(ocbus_wait_park(ocbus, session, answered, NULL, &wait, &answer));
    CHECK(wait == 0 && answer.outcome == outcome && answer.result == result && answer.flags == flags);
}

/* Takes all. */
static size_t take(const ocbus_t *ocbus, const uint8_t *session, uint8_t *buffer, size_t size)
{
    size_t written, replies;
    bool pending;

    OK(ocbus_take(ocbus, session, buffer, size, &written, &pending, &replies));
    CHECK(!pending);
    return written;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void test_without_a_handle(void)
{
    uint8_t body[16];
    uint32_t n;

    CHECK(strcmp(ocbus_version(), OCBUS_EXPECTED_VERSION) == 0);
    CHECK(ocbus_last_status() == OCBUS_OK && strcmp(ocbus_last_error(), "") == 0);
    for (n = 0; n <= OCBUS_ERROR_PANIC; n++)
        CHECK(strcmp(ocbus_status_name(n), "unknown status") != 0);
    CHECK(strcmp(ocbus_status_name(4711), "unknown status") == 0);
    CHECK(ocbus_room(32768, 0, 0) == 32758 && ocbus_room(0x40000, 0, 0) == 32758);
    CHECK(ocbus_room(1000, 200, 3) == 778 && ocbus_room(8, 0, 0) == 0 && ocbus_room(1000, SIZE_MAX, SIZE_MAX) == 0);
    OK(ocbus_wait_body(OCBUS_OUTCOME_EVENT, body));
    CHECK(memcmp(body, "\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 16) == 0);
    OK(ocbus_wait_body(OCBUS_OUTCOME_REJECTED, body));
    CHECK(memcmp(body, "\0\0\0\0\xee\x07\0\0\0\0\0\0\0\0\0\0", 16) == 0);
    FAILS(OCBUS_ERROR_ARGUMENT, "outcome", ocbus_wait_body(0, body));
    FAILS(OCBUS_ERROR_ARGUMENT, "outcome", ocbus_wait_body(6, body));
    FAILS(OCBUS_ERROR_ARGUMENT, "body", ocbus_wait_body(OCBUS_OUTCOME_EVENT, NULL));
    OK(ocbus_destroy(NULL));
    ocbus_options_free(NULL);
}

/* Each function says that it got no handle. */
static void test_null_handles(void)
{
    ocbus_statistics now = { .size = sizeof(now) };
    ocbus_wait_answer answer;
    ocbus_row row;
    uint8_t octets[32] = { 0 };
    uint32_t columns[1] = { 0 };
    uint64_t wait;
    size_t written;
    bool has;

    memset(&row, 0, sizeof(row));
    CHECK(ocbus_fd(NULL) == -1 && ocbus_last_status() == OCBUS_ERROR_ARGUMENT);
#define NO_HANDLE(call) FAILS(OCBUS_ERROR_ARGUMENT, "ocbus is NULL", call)
    NO_HANDLE(ocbus_dispatch(NULL));
    NO_HANDLE(ocbus_session_open(NULL, ONE, "bob", 1));
    NO_HANDLE(ocbus_session_touch(NULL, ONE));
    NO_HANDLE(ocbus_session_close(NULL, ONE));
    NO_HANDLE(ocbus_subscribe(NULL, ONE, 1, 0, 2, OCBUS_SCOPE_STORE, 0, 0));
    NO_HANDLE(ocbus_subscribe_rop(NULL, ONE, 1, octets, 7, NULL));
    NO_HANDLE(ocbus_release(NULL, ONE, 1));
    NO_HANDLE(ocbus_table_add(NULL, ONE, 1, 0, OCBUS_TABLE_CONTENTS, INBOX, 0));
    NO_HANDLE(ocbus_table_set_columns(NULL, ONE, 1, columns, 1));
    NO_HANDLE(ocbus_table_open_view(NULL, ONE, 1));
    NO_HANDLE(ocbus_table_reset(NULL, ONE, 1));
    NO_HANDLE(ocbus_wait_park(NULL, ONE, NULL, NULL, &wait, &answer));
    NO_HANDLE(ocbus_wait_cancel(NULL, 1));
    NO_HANDLE(ocbus_wait_next(NULL, &wait, NULL, &answer));
    NO_HANDLE(ocbus_take(NULL, ONE, octets, 32, &written, NULL, NULL));
    NO_HANDLE(ocbus_has_replies(NULL, ONE, &has));
    NO_HANDLE(ocbus_notify(NULL, ONE, octets, 10));
    NO_HANDLE(ocbus_tell_new_mail(NULL, "bob", "INBOX", '/', 1, -1, -1));
    NO_HANDLE(ocbus_answer_folder(NULL, 1, INBOX));
    NO_HANDLE(ocbus_answer_messages(NULL, 1, NULL, 0));
    NO_HANDLE(ocbus_answer_row(NULL, 1, &row));
    NO_HANDLE(ocbus_answer_unknown(NULL, 1));
    NO_HANDLE(ocbus_answer_failed(NULL, 1));
    NO_HANDLE(ocbus_statistics_read(NULL, &now));
}

static void test_options(void)
{
    ocbus_options *options = ocbus_options_new();
    char *huge = malloc(70000);
    ocbus_t *ocbus = (ocbus_t *)huge;
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    char bind_url[64];
    int taken;

    memset(huge, 'x', 69999);
    huge[69999] = '\0';
    FAILS(OCBUS_ERROR_ARGUMENT, "options", ocbus_options_set(NULL, "threads", "1"));
    FAILS(OCBUS_ERROR_ARGUMENT, "name", ocbus_options_set(options, NULL, "1"));
    FAILS(OCBUS_ERROR_ARGUMENT, "name", ocbus_options_set(options, huge, "1"));
    FAILS(OCBUS_ERROR_ARGUMENT, "value", ocbus_options_set(options, "threads", NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "value", ocbus_options_set(options, "threads", huge));
    FAILS(OCBUS_ERROR_ARGUMENT, "UTF-8", ocbus_options_set(options, "threads", "\xff"));
    FAILS(OCBUS_ERROR_CONFIG, "expected 1 or 2", ocbus_options_set(options, "threads", "3"));
    FAILS(OCBUS_ERROR_CONFIG, "thread\\n", ocbus_options_set(options, "thread\n", "1"));
    FAILS(OCBUS_ERROR_CONFIG, "resolver", ocbus_options_set(options, "resolver", "--SERVER"));
    FAILS(OCBUS_ERROR_CONFIG, "line 2", ocbus_options_read(options, "threads = 2\nthreads = 0\n"));
    FAILS(OCBUS_ERROR_ARGUMENT, "configuration", ocbus_options_read(options, NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "callback", ocbus_options_set_ids(options, NULL, NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "callback", ocbus_options_set_log(options, OCBUS_LOG_INFO, NULL, NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "level", ocbus_options_set_log(options, 0, log_line, NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "level", ocbus_options_set_log(options, 6, log_line, NULL));

    FAILS(OCBUS_ERROR_ARGUMENT, "ocbus", ocbus_create(options, NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "options", ocbus_create(NULL, &ocbus));
    CHECK(ocbus == NULL);
    FAILS(OCBUS_ERROR_ARGUMENT, "ids", ocbus_create(options, &ocbus));
    OK(ocbus_options_set_ids(options, ask_ids, NULL));
    OK(ocbus_options_read(options, "resolver = none\n# 301 s are more than a client's patience\nwait_ms = 301000"));
    FAILS(OCBUS_ERROR_CONFIG, "wait: 301 s: expected 1 to 300 s", ocbus_create(options, &ocbus));
    OK(ocbus_options_set(options, "wait_ms", "1000"));
    OK(ocbus_options_read(options, "resolver = --SERVER=127.0.0.1:1\nlease_s = 0"));
    FAILS(OCBUS_ERROR_CONFIG, "lease: 0 s", ocbus_create(options, &ocbus));
    OK(ocbus_options_set(options, "lease_s", "60"));

    /* A port that somebody has. */
    taken = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(taken, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(taken, 1) == 0);
    CHECK(getsockname(taken, (struct sockaddr *)&address, &length) == 0);
    sprintf(bind_url, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    OK(ocbus_options_set(options, "bind", bind_url));
    FAILS(OCBUS_ERROR_SYSTEM, bind_url, ocbus_create(options, &ocbus));
    CHECK(ocbus == NULL);
    close(taken);
    ocbus_options_free(options);
    free(huge);
}

static void test_sessions_and_handles(void)
{
    const uint8_t e24[] = { 0x29, 0, 0, 1, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0x77 };
    uint32_t columns[1] = { 0x0e060040 };
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none\nhandles_per_session = 4\nsessions_per_user = 2");
    char long_cn[300];
    size_t consumed, written;
    bool has;

    memset(long_cn, 'x', 299);
    long_cn[299] = '\0';
    FAILS(OCBUS_ERROR_ARGUMENT, "session", ocbus_session_open(ocbus, NULL, "bob", 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "cn", ocbus_session_open(ocbus, ONE, NULL, 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "cn is empty", ocbus_session_open(ocbus, ONE, "", 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "cn", ocbus_session_open(ocbus, ONE, "b ob", 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "UTF-8", ocbus_session_open(ocbus, ONE, "b\xfc", 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "241", ocbus_session_open(ocbus, ONE, long_cn, 1));
    OK(ocbus_session_open(ocbus, ONE, "bob", 1));
    FAILS(OCBUS_ERROR_DUPLICATE, "open already", ocbus_session_open(ocbus, ONE, "bob", 1));
    OK(ocbus_session_open(ocbus, TWO, "bob", 2));
    FAILS(OCBUS_ERROR_LIMIT, "sessions_per_user", ocbus_session_open(ocbus, NONE, "bob", 3));
    OK(ocbus_session_touch(ocbus, ONE));

    /* No such session. */
#define NO_SESSION(call) FAILS(OCBUS_ERROR_UNKNOWN_SESSION, "00000009-", call)
    NO_SESSION(ocbus_session_touch(ocbus, NONE));
    NO_SESSION(ocbus_session_close(ocbus, NONE));
    NO_SESSION(ocbus_subscribe(ocbus, NONE, 1, 0, 2, OCBUS_SCOPE_STORE, 0, 0));
    NO_SESSION(ocbus_subscribe_rop(ocbus, NONE, 1, e24, sizeof(e24), NULL));
    NO_SESSION(ocbus_release(ocbus, NONE, 1));
    NO_SESSION(ocbus_table_add(ocbus, NONE, 1, 0, OCBUS_TABLE_CONTENTS, INBOX, 0));
    NO_SESSION(ocbus_table_set_columns(ocbus, NONE, 1, columns, 1));
    NO_SESSION(ocbus_table_open_view(ocbus, NONE, 1));
    NO_SESSION(ocbus_table_reset(ocbus, NONE, 1));
    NO_SESSION(ocbus_take(ocbus, NONE, NULL, 0, &written, NULL, NULL));
    NO_SESSION(ocbus_has_replies(ocbus, NONE, &has));
    NO_SESSION(ocbus_notify(ocbus, NONE, (const uint8_t *)"\x2a\x32\0\0\0\0\0\x81\1\0", 10));
    at_once(ocbus, NONE, OCBUS_OUTCOME_UNKNOWN_SESSION, 0, 1);

    /* Subscriptions. */
    OK(ocbus_subscribe(ocbus, ONE, 1, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
    FAILS(OCBUS_ERROR_DUPLICATE, "0x1", ocbus_subscribe(ocbus, ONE, 1, 0, 2, OCBUS_SCOPE_STORE, 0, 0));
    OK(ocbus_subscribe(ocbus, ONE, 2, 0, ALL_TYPES, OCBUS_SCOPE_FOLDER, INBOX, 0));
    OK(ocbus_subscribe(ocbus, ONE, 3, 0, ALL_TYPES, OCBUS_SCOPE_MESSAGE, INBOX, 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "scope", ocbus_subscribe(ocbus, ONE, 4, 0, 2, 0, 0, 0));
    FAILS(OCBUS_ERROR_ARGUMENT, "scope", ocbus_subscribe(ocbus, ONE, 4, 0, 2, 4, 0, 0));
    FAILS(OCBUS_ERROR_ARGUMENT, "scope", ocbus_subscribe(ocbus, ONE, 4, 0, 2, OCBUS_SCOPE_STORE, INBOX, 0));
    FAILS(OCBUS_ERROR_ARGUMENT, "scope", ocbus_subscribe(ocbus, ONE, 4, 0, 2, OCBUS_SCOPE_FOLDER, 0, 0));
    FAILS(OCBUS_ERROR_ARGUMENT, "scope", ocbus_subscribe(ocbus, ONE, 4, 0, 2, OCBUS_SCOPE_MESSAGE, INBOX, 0));
    FAILS(OCBUS_ERROR_ARGUMENT, "rop", ocbus_subscribe_rop(ocbus, ONE, 4, NULL, 7, NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "rop", ocbus_subscribe_rop(ocbus, ONE, 4, e24, SIZE_MAX, NULL));
    FAILS(OCBUS_ERROR_MALFORMED, "octet", ocbus_subscribe_rop(ocbus, ONE, 4, NULL, 0, NULL));
    for (consumed = 0; consumed < 23; consumed++)
        FAILS(OCBUS_ERROR_MALFORMED, "octet", ocbus_subscribe_rop(ocbus, ONE, 4, e24, consumed, NULL));
    OK(ocbus_subscribe_rop(ocbus, ONE, 4, e24, sizeof(e24), &consumed));
    CHECK(consumed == 23);
    FAILS(OCBUS_ERROR_LIMIT, "handles_per_session", ocbus_subscribe(ocbus, ONE, 5, 0, 2, OCBUS_SCOPE_STORE, 0, 0));
    FAILS(OCBUS_ERROR_LIMIT, "handles_per_session",
          ocbus_table_add(ocbus, ONE, 5, 0, OCBUS_TABLE_CONTENTS, INBOX, 0));
    OK(ocbus_release(ocbus, ONE, 4));
    FAILS(OCBUS_ERROR_UNKNOWN_HANDLE, "0x4", ocbus_release(ocbus, ONE, 4));

    /* Tables. */
    FAILS(OCBUS_ERROR_ARGUMENT, "kind", ocbus_table_add(ocbus, ONE, 5, 0, 0, INBOX, 0));
    FAILS(OCBUS_ERROR_ARGUMENT, "kind", ocbus_table_add(ocbus, ONE, 5, 0, 4, INBOX, 0));
    FAILS(OCBUS_ERROR_ARGUMENT, "flags", ocbus_table_add(ocbus, ONE, 5, 0, OCBUS_TABLE_CONTENTS, INBOX, 4));
    FAILS(OCBUS_ERROR_DUPLICATE, "0x2", ocbus_table_add(ocbus, ONE, 2, 0, OCBUS_TABLE_HIERARCHY, INBOX, 1));
    OK(ocbus_table_add(ocbus, ONE, 5, 0, OCBUS_TABLE_HIERARCHY, INBOX,
                       OCBUS_TABLE_DEPTH | OCBUS_TABLE_NO_NOTIFICATIONS));
    OK(ocbus_table_set_columns(ocbus, ONE, 5, columns, 1));
    OK(ocbus_table_set_columns(ocbus, ONE, 5, NULL, 0));
    FAILS(OCBUS_ERROR_ARGUMENT, "columns", ocbus_table_set_columns(ocbus, ONE, 5, NULL, 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "columns", ocbus_table_set_columns(ocbus, ONE, 5, columns, 4097));
    FAILS(OCBUS_ERROR_ARGUMENT, "aligned",
          ocbus_table_set_columns(ocbus, ONE, 5, (const uint32_t *)(const void *)((const char *)columns + 1), 1));
    FAILS(OCBUS_ERROR_UNKNOWN_HANDLE, "0x6", ocbus_table_set_columns(ocbus, ONE, 6, columns, 1));
    OK(ocbus_table_open_view(ocbus, ONE, 5));
    FAILS(OCBUS_ERROR_UNKNOWN_HANDLE, "0x6", ocbus_table_open_view(ocbus, ONE, 6));
    OK(ocbus_table_reset(ocbus, ONE, 5));
    FAILS(OCBUS_ERROR_UNKNOWN_HANDLE, "0x6", ocbus_table_reset(ocbus, ONE, 6));

    /* What the server tells. */
    FAILS(OCBUS_ERROR_ARGUMENT, "uid", ocbus_tell_new_mail(ocbus, "bob", "INBOX", '/', 0, -1, -1));
    FAILS(OCBUS_ERROR_ARGUMENT, "separator", ocbus_tell_new_mail(ocbus, "bob", "INBOX", '\0', 1, -1, -1));
    FAILS(OCBUS_ERROR_ARGUMENT, "messages", ocbus_tell_new_mail(ocbus, "bob", "INBOX", '/', 1, -2, -1));
    FAILS(OCBUS_ERROR_ARGUMENT, "unseen", ocbus_tell_new_mail(ocbus, "bob", "INBOX", '/', 1, 1, 5000000000));
    FAILS(OCBUS_ERROR_ARGUMENT, "folder", ocbus_tell_new_mail(ocbus, "bob", NULL, '/', 1, -1, -1));
    FAILS(OCBUS_ERROR_ARGUMENT, "cn", ocbus_tell_new_mail(ocbus, "b\r\nob", "INBOX", '/', 1, -1, -1));

    OK(ocbus_session_close(ocbus, TWO));
    FAILS(OCBUS_ERROR_UNKNOWN_SESSION, "unknown", ocbus_session_close(ocbus, TWO));
    CHECK(host.lines == 0);
    OK(ocbus_dispatch(ocbus));
    CHECK(host.lines > 0); /* session_opened and others, at debug */
    OK(ocbus_destroy(ocbus));
}

static void test_waits_and_replies(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none\nwait_ms = 1000\nquery_timeout_ms = 500");
    const uint32_t row_columns[1] = { 0x0e060040 };
    const uint64_t mid[1] = { 0x99 };
    ocbus_wait_answer answer;
    uint8_t octets[4096], guid[16];
    uint64_t wait, second;
    size_t written, replies, all;
    bool pending, has;

    OK(ocbus_session_open(ocbus, ONE, "bob", 7));
    OK(ocbus_subscribe(ocbus, ONE, 0x29, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
    OK(ocbus_table_add(ocbus, ONE, 0x32, 0, OCBUS_TABLE_CONTENTS, INBOX, 0));
    OK(ocbus_table_open_view(ocbus, ONE, 0x32));
    FAILS(OCBUS_ERROR_ARGUMENT, "wait", ocbus_wait_park(ocbus, ONE, answered, &host, NULL, &answer));
    FAILS(OCBUS_ERROR_ARGUMENT, "answer", ocbus_wait_park(ocbus, ONE, answered, &host, &wait, NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "session", ocbus_wait_park(ocbus, NULL, answered, &host, &wait, &answer));

    /* A mail ends a wait; a second wait is turned away meanwhile. */
    wait = park(ocbus, ONE, &host);
    at_once(ocbus, ONE, OCBUS_OUTCOME_REJECTED, 0x7ee, 0);
    OK(ocbus_has_replies(ocbus, ONE, &has));
    CHECK(!has);
    tell(ocbus, 7);
    until(ocbus, &host.answers, 1);
    CHECK(host.last_wait == wait && host.last.outcome == OCBUS_OUTCOME_EVENT);
    CHECK(host.last.result == 0 && host.last.flags == 1);
    CHECK(host.folders == 1 && host.messages == 1 && host.rows == 0);
    OK(ocbus_has_replies(ocbus, ONE, &has));
    CHECK(has);
    at_once(ocbus, ONE, OCBUS_OUTCOME_EVENT, 0, 1);

    /* Buffers that are too small, or not there. */
    FAILS(OCBUS_ERROR_ARGUMENT, "buffer", ocbus_take(ocbus, ONE, NULL, 100, &written, &pending, &replies));
    FAILS(OCBUS_ERROR_ARGUMENT, "written", ocbus_take(ocbus, ONE, octets, 100, NULL, &pending, &replies));
    OK(ocbus_take(ocbus, ONE, NULL, 0, &written, &pending, &replies));
    CHECK(written == 0 && pending && replies == 0);
    memset(octets, 0xa5, sizeof(octets));
    OK(ocbus_take(ocbus, ONE, octets, 2, &written, &pending, &replies));
    CHECK(written == 0 && pending && replies == 0 && octets[0] == 0xa5);
    /* RopPending alone, then one whole reply and RopPending. */
    OK(ocbus_take(ocbus, ONE, octets, 40, &written, &pending, &replies));
    CHECK(written == 3 && pending && replies == 0 && memcmp(octets, "\x6e\x07\0\xa5", 4) == 0);
    memset(octets, 0xa5, sizeof(octets));
    OK(ocbus_take(ocbus, ONE, octets, 41, &written, &pending, &replies));
    CHECK(written == 41 && pending && replies == 1 && octets[41] == 0xa5);
    CHECK(memcmp(octets, "\x2a\x29\0\0\0\0\x02\x80\x01\0\0\0\0\0\x12\x34\x01\0\0\0\x07\0\0\0", 24) == 0);
    CHECK(memcmp(octets + 38, "\x6e\x07\0", 3) == 0);
    /* 8004, 1010 with the number of messages, TableChanged. */
    OK(ocbus_take(ocbus, ONE, octets, sizeof(octets), &written, NULL, NULL));
    CHECK(written == 26 + 22 + 10 && memcmp(octets + 48, "\x2a\x32\0\0\0\0\0\x81\1\0", 10) == 0);
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) == 0);

    /* A row. */
    OK(ocbus_table_set_columns(ocbus, ONE, 0x32, row_columns, 1));
    wait = park(ocbus, ONE, &host);
    tell(ocbus, 8);
    until(ocbus, &host.answers, 2);
    until(ocbus, &host.rows, 1);
    all = take(ocbus, ONE, octets, sizeof(octets));
    CHECK(all == 38 + 26 + 22 + 61 && memcmp(octets + 86, "\x2a\x32\0\0\0\0\0\x81\3\0", 10) == 0);
    CHECK(memcmp(octets + 86 + 50, "\x09\0\0\0\0\0\0\x5e\x3c\xdb\x01", 11) == 0);
    OK(ocbus_table_set_columns(ocbus, ONE, 0x32, NULL, 0));

    /* Nothing comes. */
    wait = park(ocbus, ONE, &host);
    until(ocbus, &host.answers, 3);
    CHECK(host.last_wait == wait && host.last.outcome == OCBUS_OUTCOME_TIMED_OUT && host.last.flags == 0);

    /* Taken back; also when it is answered already, and not dispatched yet. */
    wait = park(ocbus, ONE, &host);
    OK(ocbus_wait_cancel(ocbus, wait));
    FAILS(OCBUS_ERROR_UNKNOWN_WAIT, "never parked", ocbus_wait_cancel(ocbus, wait));
    FAILS(OCBUS_ERROR_UNKNOWN_WAIT, "never parked", ocbus_wait_cancel(ocbus, 4711));
    wait = park(ocbus, ONE, &host);
    OK(ocbus_notify(ocbus, ONE, (const uint8_t *)"\x2a\x32\0\0\0\x05\0\x81\1\0", 10));
    CHECK(readable(ocbus, 0));
    OK(ocbus_wait_cancel(ocbus, wait));
    OK(ocbus_dispatch(ocbus));
    CHECK(host.answers == 3 && !readable(ocbus, 0));
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) == 10 && octets[5] == 0);

    /* Fetched, without a callback. */
    OK(ocbus_wait_park(ocbus, ONE, NULL, NULL, &wait, &answer));
    CHECK(wait != 0 && !readable(ocbus, 0));
    OK(ocbus_wait_next(ocbus, &second, guid, &answer));
    CHECK(second == 0);
    OK(ocbus_notify(ocbus, ONE, (const uint8_t *)"\x2a\x32\0\0\0\0\0\x81\1\0", 10));
    OK(ocbus_dispatch(ocbus));
    CHECK(readable(ocbus, 0)); /* as long as it is not fetched */
    FAILS(OCBUS_ERROR_ARGUMENT, "wait", ocbus_wait_next(ocbus, NULL, guid, &answer));
    FAILS(OCBUS_ERROR_ARGUMENT, "answer", ocbus_wait_next(ocbus, &second, guid, NULL));
    OK(ocbus_wait_next(ocbus, &second, guid, &answer));
    CHECK(second == wait && memcmp(guid, ONE, 16) == 0 && answer.outcome == OCBUS_OUTCOME_EVENT);
    CHECK(!readable(ocbus, 0));
    take(ocbus, ONE, octets, sizeof(octets));

    /* What is no RopNotify. */
    FAILS(OCBUS_ERROR_ARGUMENT, "rop", ocbus_notify(ocbus, ONE, NULL, 10));
    FAILS(OCBUS_ERROR_ARGUMENT, "rop", ocbus_notify(ocbus, ONE, octets, SIZE_MAX));
    FAILS(OCBUS_ERROR_MALFORMED, "octet", ocbus_notify(ocbus, ONE, (const uint8_t *)"\x2a\x32\0\0\0\0\0\x81\1", 9));
    FAILS(OCBUS_ERROR_MALFORMED, "1 octets", ocbus_notify(ocbus, ONE, (const uint8_t *)"\x2a\x32\0\0\0\0\0\x81\1\0", 11));
    FAILS(OCBUS_ERROR_UNKNOWN_HANDLE, "0x33", ocbus_notify(ocbus, ONE, (const uint8_t *)"\x2a\x33\0\0\0\0\0\x81\1\0", 10));

    /* Answered later. */
    host.how = LATER;
    wait = park(ocbus, ONE, &host);
    tell(ocbus, 9);
    until(ocbus, &host.messages, 3);
    CHECK(host.kept_uid == 9 && host.answers == 3);
    OK(ocbus_answer_messages(ocbus, host.kept, mid, 1));
    until(ocbus, &host.answers, 4);
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) == 38 + 26 + 22 + 10 && octets[16] == 0x99);
    OK(ocbus_answer_messages(ocbus, host.kept, mid, 1)); /* once more: counted */
    OK(ocbus_answer_folder(ocbus, 4711, INBOX));
    CHECK(statistics(ocbus).late_answers == 2);
    FAILS(OCBUS_ERROR_ARGUMENT, "messages", ocbus_answer_messages(ocbus, 1, NULL, 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "messages", ocbus_answer_messages(ocbus, 1, &wait, 1001));
    FAILS(OCBUS_ERROR_ARGUMENT, "row", ocbus_answer_row(ocbus, 1, NULL));

    /* Failed, and never: the folder and its table have changed. */
    host.how = FAILED;
    wait = park(ocbus, ONE, &host);
    tell(ocbus, 10);
    until(ocbus, &host.answers, 5);
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) == 22 + 10);
    host.how = NEVER;
    wait = park(ocbus, ONE, &host);
    tell(ocbus, 11);
    until(ocbus, &host.answers, 6);
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) == 22 + 10);
    CHECK(statistics(ocbus).query_failures == 1 && statistics(ocbus).query_timeouts == 1);
    CHECK(statistics(ocbus).waits_event == 8 && statistics(ocbus).waits_rejected == 1);

    /* A session that is closed answers its wait. */
    wait = park(ocbus, ONE, &host);
    OK(ocbus_session_close(ocbus, ONE));
    until(ocbus, &host.answers, 7);
    CHECK(host.last.outcome == OCBUS_OUTCOME_UNKNOWN_SESSION && host.last.flags == 1);
    OK(ocbus_destroy(ocbus));
}

static void test_statistics(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none");
    ocbus_statistics now;

    OK(ocbus_session_open(ocbus, ONE, "bob", 7));
    memset(&now, 0xa5, sizeof(now));
    now.size = 0;
    FAILS(OCBUS_ERROR_ARGUMENT, "size", ocbus_statistics_read(ocbus, &now));
    now.size = SIZE_MAX;
    FAILS(OCBUS_ERROR_ARGUMENT, "size", ocbus_statistics_read(ocbus, &now));
    FAILS(OCBUS_ERROR_ARGUMENT, "NULL", ocbus_statistics_read(ocbus, NULL));
    /* A program that was built when there were two fields. */
    now.size = offsetof(ocbus_statistics, parked);
    OK(ocbus_statistics_read(ocbus, &now));
    CHECK(now.size == offsetof(ocbus_statistics, parked) && now.sessions == 1 && now.users == 1);
    CHECK(now.parked == UINT64_C(0xa5a5a5a5a5a5a5a5));
    OK(ocbus_destroy(ocbus));
}

/* Two handles, a policy, and parked waits at the end. */
static void test_destroy(void)
{
    struct host first_host, second_host;
    ocbus_t *first = create(&first_host, "resolver = none\nsecond_wait = replace\nthreads = 2");
    ocbus_t *second = create(&second_host, "resolver = none");
    uint64_t wait, later;
    int fd = ocbus_fd(first);

    CHECK(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    OK(ocbus_session_open(first, ONE, "bob", 1));
    OK(ocbus_session_open(second, ONE, "bob", 1));
    wait = park(first, ONE, &first_host);
    later = park(first, ONE, &first_host);
    OK(ocbus_dispatch(first));
    CHECK(first_host.answers == 1 && first_host.last_wait == wait && first_host.last.result == 0x7ee);
    park(second, ONE, &second_host);
    OK(ocbus_destroy(first));
    CHECK(first_host.answers == 2 && first_host.last_wait == later && first_host.last.result == 0x3ed);
    CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
    CHECK(second_host.answers == 0);
    OK(ocbus_destroy(second));
    CHECK(second_host.answers == 1 && second_host.last.outcome == OCBUS_OUTCOME_EXITING);
}

/* No handler is set, no mask changed, and no thread of ours takes a signal. */
static void test_signals(void)
{
    struct sigaction before[65], after;
    sigset_t mask_before, mask_after;
    struct host host;
    ocbus_t *ocbus;
    struct dirent *entry;
    DIR *tasks;
    int number, threads = 0;

    memset(before, 0, sizeof(before));
    for (number = 1; number <= 64; number++)
        sigaction(number, NULL, &before[number]);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
    /* A resolver that does not answer, and an endpoint: all threads that there can be. */
    ocbus = create(&host, "resolver = --SERVER=127.0.0.1:1\nthreads = 2");
    OK(ocbus_session_open(ocbus, ONE, "bob", 1));
    for (number = 1; number <= 64; number++) {
        memset(&after, 0, sizeof(after));
        sigaction(number, NULL, &after);
        CHECK(after.sa_handler == before[number].sa_handler);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    for (number = 1; number <= 64; number++)
        CHECK(sigismember(&mask_before, number) == sigismember(&mask_after, number));
    tasks = opendir("/proc/self/task");
    while ((entry = readdir(tasks)) != NULL) {
        unsigned long long blocked = 0;
        char path[300], line[256];
        FILE *status;

        if (entry->d_name[0] == '.' || atoi(entry->d_name) == (int)getpid())
            continue;
        sprintf(path, "/proc/self/task/%s/status", entry->d_name);
        status = fopen(path, "r");
        if (status == NULL)
            continue; /* it has ended */
        while (fgets(line, sizeof(line), status) != NULL)
            sscanf(line, "SigBlk: %llx", &blocked);
        fclose(status);
        threads++;
        for (number = 1; number <= 31; number++) {
            bool is_fault = number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL ||
                            number == SIGTRAP || number == SIGKILL || number == SIGSTOP;
            CHECK(OCBUS_UNDER_VALGRIND || is_fault || (blocked >> (number - 1) & 1) == 1);
        }
    }
    closedir(tasks);
    CHECK(threads >= 3); /* ours and nng's */
    OK(ocbus_destroy(ocbus));
}

/* In a child everything fails at once, and the parent goes on. */
static void test_fork(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = --SERVER=127.0.0.1:1"), *other = NULL;
    ocbus_options *options = ocbus_options_new();
    ocbus_statistics now = { .size = sizeof(now) };
    ocbus_wait_answer answer;
    uint8_t octets[32];
    uint64_t wait;
    size_t written;
    pid_t child;
    int status;

    OK(ocbus_options_set_ids(options, ask_ids, &host));
    OK(ocbus_session_open(ocbus, ONE, "bob", 7));
    OK(ocbus_subscribe(ocbus, ONE, 0x29, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
    park(ocbus, ONE, &host);
    fflush(stdout);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int fd;

        alarm(30);
        CHECK(ocbus_fd(ocbus) == -1 && ocbus_last_status() == OCBUS_ERROR_FORKED);
#define FORKED(call) FAILS(OCBUS_ERROR_FORKED, "forked", call)
        FORKED(ocbus_dispatch(ocbus));
        FORKED(ocbus_session_open(ocbus, TWO, "bob", 1));
        FORKED(ocbus_session_touch(ocbus, ONE));
        FORKED(ocbus_session_close(ocbus, ONE));
        FORKED(ocbus_subscribe(ocbus, ONE, 1, 0, 2, OCBUS_SCOPE_STORE, 0, 0));
        FORKED(ocbus_release(ocbus, ONE, 0x29));
        FORKED(ocbus_table_open_view(ocbus, ONE, 1));
        FORKED(ocbus_wait_park(ocbus, ONE, NULL, NULL, &wait, &answer));
        FORKED(ocbus_wait_cancel(ocbus, 1));
        FORKED(ocbus_wait_next(ocbus, &wait, NULL, &answer));
        FORKED(ocbus_take(ocbus, ONE, octets, 32, &written, NULL, NULL));
        FORKED(ocbus_tell_new_mail(ocbus, "bob", "INBOX", '/', 1, -1, -1));
        FORKED(ocbus_answer_unknown(ocbus, 1));
        FORKED(ocbus_statistics_read(ocbus, &now));
        FORKED(ocbus_create(options, &other));
        CHECK(other == NULL);
        fd = dup(0);
        close(fd);
        OK(ocbus_destroy(ocbus));
        CHECK(dup(0) < fd); /* the descriptor's number is free */
        /* What the threads had that are not here would be leaks. Errors before are told all the same. */
        if (OCBUS_UNDER_VALGRIND)
            execl("/bin/true", "true", (char *)NULL);
        exit(0); /* not _exit(): what runs at an exit must not hang either */
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tell(ocbus, 7);
    until(ocbus, &host.answers, 1);
    CHECK(host.last.outcome == OCBUS_OUTCOME_EVENT);
    OK(ocbus_destroy(ocbus));
    ocbus_options_free(options);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS 200

struct worker {
    const ocbus_t *ocbus;
    int number;
};

static void *work(void *data)
{
    struct worker *worker = data;
    uint8_t guid[16] = { 0x80 }, octets[512];
    ocbus_wait_answer answer;
    uint64_t wait;
    size_t written;
    int n;

    guid[1] = (uint8_t)worker->number;
    for (n = 0; n < ROUNDS; n++) {
        OK(ocbus_session_open(worker->ocbus, guid, "bob", 1));
        OK(ocbus_subscribe(worker->ocbus, guid, 1, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
        OK(ocbus_wait_park(worker->ocbus, guid, NULL, NULL, &wait, &answer));
        tell(worker->ocbus, 1 + (uint32_t)n);
        OK(ocbus_take(worker->ocbus, guid, octets, sizeof(octets), &written, NULL, NULL));
        if (n % 2 == 0 && wait != 0)
            ocbus_wait_cancel(worker->ocbus, wait); /* it may be answered and fetched by now */
        CHECK(ocbus_session_touch(worker->ocbus, NONE) == OCBUS_ERROR_UNKNOWN_SESSION);
        CHECK(strstr(ocbus_last_error(), "unknown") != NULL);
        OK(ocbus_session_close(worker->ocbus, guid));
    }
    return NULL;
}

static void test_threads(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none\nthreads = 2\nsessions_per_user = 10");
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    ocbus_wait_answer answer;
    uint64_t wait;
    int n;

    OK(ocbus_session_open(ocbus, ONE, "bob", 1)); /* so that there is always one */
    for (n = 0; n < THREADS; n++) {
        workers[n].ocbus = ocbus;
        workers[n].number = n;
        CHECK(pthread_create(&threads[n], NULL, work, &workers[n]) == 0);
    }
    /* This one dispatches, until all sessions of the others are closed. */
    for (n = 0; n < THREADS; n++) {
        while (pthread_tryjoin_np(threads[n], NULL) != 0) {
            readable(ocbus, 10);
            OK(ocbus_dispatch(ocbus));
            do
                OK(ocbus_wait_next(ocbus, &wait, NULL, &answer));
            while (wait != 0);
        }
    }
    CHECK(statistics(ocbus).sessions == 1 && statistics(ocbus).parked == 0);
    CHECK(statistics(ocbus).bus_published == THREADS * ROUNDS);
    OK(ocbus_destroy(ocbus));
}

static int descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

#define RUN(test)                                                                                  \
    do {                                                                                           \
        test();                                                                                    \
        printf("%s\n", #test);                                                                     \
        fflush(stdout);                                                                            \
    } while (0)

int main(void)
{
    int before;

    RUN(test_without_a_handle);
    RUN(test_null_handles);
    RUN(test_options);
    before = descriptors();
    RUN(test_sessions_and_handles);
    RUN(test_waits_and_replies);
    RUN(test_statistics);
    RUN(test_destroy);
    CHECK(descriptors() == before);
    RUN(test_signals);
    RUN(test_fork);
    RUN(test_threads);
    /* nng keeps a few for the process, once. */
    before = descriptors();
    RUN(test_fork);
    CHECK(descriptors() == before);
    printf("all is well\n");
    return 0;
}
