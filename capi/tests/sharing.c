/* Half of a server, as OpenChange has two: `sharing emsmdb CONFIGURATION` opens a session and fetches its replies at each
 * line "fetch" on its standard input, `sharing asyncemsmdb CONFIGURATION` parks waits for it and says how they were
 * answered. They share nothing but memcached. Both end at the end of their input. Run by tests/sharing.rs. */
#include <ocbus.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INBOX UINT64_C(0x3412000000000001)

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != OCBUS_OK) {                                                                  \
            fprintf(stderr, "%s: %s\n", #call, ocbus_last_error());                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static const uint8_t SESSION[16] = { 1 }, ASYNC[16] = { 2 };

static void ask_ids(void *user, const ocbus_t *ocbus, const ocbus_query *query)
{
    uint64_t mid;

    (void)user;
    if (query->what == OCBUS_WHAT_FOLDER) {
        ocbus_answer_folder(ocbus, query->id, INBOX);
    } else if (query->what == OCBUS_WHAT_MESSAGES && query->message_count == 1) {
        mid = 1 + ((uint64_t)query->messages[0].uid << 32);
        ocbus_answer_messages(ocbus, query->id, &mid, 1);
    } else {
        ocbus_answer_unknown(ocbus, query->id);
    }
}

static void log_line(void *user, int level, const char *line)
{
    (void)user;
    fprintf(stderr, "ocbus (%d): %s\n", level, line);
}

static void answered(void *user, const ocbus_t *ocbus, uint64_t wait, const uint8_t *session,
                     const ocbus_wait_answer *answer)
{
    uint64_t next;

    (void)wait;
    printf("wait %x %u %u\n", (unsigned)answer->result, (unsigned)answer->flags, (unsigned)session[0]);
    fflush(stdout);
    if (answer->outcome == OCBUS_OUTCOME_EVENT && user != NULL) {
        /* The client calls emsmdb, and waits again. */
        OK(ocbus_async_wait_park(ocbus, ASYNC, answered, user, &next));
    }
}

static ocbus_t *create(const char *part, const char *configuration)
{
    ocbus_options *options = ocbus_options_new();
    ocbus_t *ocbus;

    OK(ocbus_options_set_ids(options, ask_ids, NULL));
    OK(ocbus_options_set_log(options, OCBUS_LOG_WARNING, log_line, NULL));
    OK(ocbus_options_set(options, "sharing", part));
    OK(ocbus_options_read(options, configuration));
    OK(ocbus_create(options, &ocbus));
    ocbus_options_free(options);
    return ocbus;
}

static void fetch(const ocbus_t *ocbus)
{
    uint8_t octets[32768];
    size_t written, i;

    OK(ocbus_take(ocbus, SESSION, octets, ocbus_room(32768, 0, 1), &written, NULL, NULL));
    printf("replies ");
    for (i = 0; i < written; i++)
        printf("%02x", octets[i]);
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const uint8_t rop[] = { 0x29, 0x05, 0x00, 0x01, 0x7e, 0x00, 0x01 }; /* logon 5, the whole store */
    const char *part = argc > 1 ? argv[1] : "";
    bool is_async = strcmp(part, "asyncemsmdb") == 0;
    ocbus_t *ocbus = create(part, argc > 2 ? argv[2] : "");
    char line[80];
    uint64_t wait, given_up;

    if (is_async) {
        OK(ocbus_async_wait_park(ocbus, ASYNC, answered, ocbus, &wait));
        /* One whose client is gone: nobody is told. */
        OK(ocbus_async_wait_park(ocbus, SESSION, answered, NULL, &given_up));
        OK(ocbus_wait_cancel(ocbus, given_up));
    } else {
        OK(ocbus_session_open(ocbus, SESSION, "bob", 7));
        OK(ocbus_subscribe_rop(ocbus, SESSION, 0x29, rop, sizeof(rop), NULL));
        OK(ocbus_async_connect(ocbus, SESSION, ASYNC));
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct pollfd polled[2] = { { 0, POLLIN, 0 }, { 0, POLLIN, 0 } };

        polled[1].fd = ocbus_fd(ocbus);
        poll(polled, 2, -1);
        OK(ocbus_dispatch(ocbus));
        if (polled[0].revents == 0)
            continue;
        if (fgets(line, sizeof(line), stdin) == NULL)
            break;
        if (strcmp(line, "fetch\n") == 0)
            fetch(ocbus);
    }
    if (!is_async)
        OK(ocbus_session_close(ocbus, SESSION));
    OK(ocbus_destroy(ocbus));
    printf("ended\n");
    return 0;
}
