/* The shortest server: one Outlook session in a plain poll() loop. A template for a server without an event library.
 *
 *     poll_loop                            in this process only: it tells itself of a mail
 *     poll_loop 'resolver = --SERVER=127.0.0.1:11211' bob
 *                                          waits for a mail that Dovecot delivers to bob
 *
 * It ends when it has fetched the replies that the mail brought about.
 */
#include <ocbus.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#define INBOX_FID UINT64_C(0x3412000000000001) /* replica 1, counter 0x1234 */

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, ocbus_last_error());
    exit(1);
}

/* Ids are the server's: OpenChange has them in its indexing database, under SOGo's URIs. */
static void ask_ids(void *user, const ocbus_t *ocbus, const ocbus_query *query)
{
    uint64_t mids[64];
    size_t i;

    (void)user;
    switch (query->what) {
    case OCBUS_WHAT_FOLDER:
        printf("which folder is %s ?\n", query->sogo_uri);
        ocbus_answer_folder(ocbus, query->id, INBOX_FID);
        break;
    case OCBUS_WHAT_MESSAGES:
        if (query->message_count > 64) { /* more than messages_per_event below */
            ocbus_answer_failed(ocbus, query->id);
            break;
        }
        for (i = 0; i < query->message_count; i++) {
            printf("which message is %s ?\n", query->messages[i].sogo_uri);
            mids[i] = INBOX_FID + ((uint64_t)query->messages[i].uid << 32);
        }
        ocbus_answer_messages(ocbus, query->id, mids, query->message_count);
        break;
    default: /* rows of tables: without them Outlook reads the table again */
        ocbus_answer_unknown(ocbus, query->id);
    }
}

/* The log. A server has its own. */
static void log_line(void *user, int level, const char *line)
{
    (void)user;
    fprintf(stderr, "ocbus (%d): %s\n", level, line);
}

int main(int argc, char **argv)
{
    const char *configuration = argc > 1 ? argv[1] : "resolver = none";
    const char *cn = argc > 2 ? argv[2] : "bob";
    /* The GUID of the emsmdb session, as it stands on the wire. */
    const uint8_t session[OCBUS_GUID_OCTETS] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
    /* RopRegisterNotification as Outlook sends it: logon 0, new mail and five more, the whole store. */
    const uint8_t rop[] = { 0x29, 0x00, 0x00, 0x01, 0x7e, 0x00, 0x01 };
    uint8_t response[32768];
    ocbus_wait_answer answer;
    ocbus_options *options;
    ocbus_t *ocbus;
    uint64_t wait;

    options = ocbus_options_new();
    ocbus_options_set_ids(options, ask_ids, NULL);
    ocbus_options_set_log(options, OCBUS_LOG_WARNING, log_line, NULL);
    if (ocbus_options_set(options, "messages_per_event", "64") != OCBUS_OK ||
        ocbus_options_read(options, configuration) != OCBUS_OK || ocbus_create(options, &ocbus) != OCBUS_OK)
        fail("create");
    ocbus_options_free(options);

    /* EcDoConnectEx, RopRegisterNotification, RopGetContentsTable, RopQueryRows, EcDoAsyncWaitEx */
    if (ocbus_session_open(ocbus, session, cn, 7) != OCBUS_OK ||
        ocbus_subscribe_rop(ocbus, session, 0x29, rop, sizeof(rop), NULL) != OCBUS_OK ||
        ocbus_table_add(ocbus, session, 0x32, 0, OCBUS_TABLE_CONTENTS, INBOX_FID, 0) != OCBUS_OK ||
        ocbus_table_open_view(ocbus, session, 0x32) != OCBUS_OK ||
        ocbus_wait_park(ocbus, session, NULL, NULL, &wait, &answer) != OCBUS_OK)
        fail("session");
    printf("waiting\n");
    fflush(stdout);
    if (argc < 2)
        ocbus_tell_new_mail(ocbus, cn, "INBOX", '/', 7, 42, 3);

    for (;;) {
        struct pollfd polled = { ocbus_fd(ocbus), POLLIN, 0 };
        size_t size = ocbus_room(32768, 0, 1), written, replies, i;
        bool pending;

        poll(&polled, 1, -1);
        if (ocbus_dispatch(ocbus) != OCBUS_OK || ocbus_wait_next(ocbus, &wait, NULL, &answer) != OCBUS_OK)
            fail("dispatch");
        if (wait == 0) /* nothing but questions and log so far */
            continue;
        printf("the wait is answered: result 0x%x, flags %u\n", (unsigned)answer.result, (unsigned)answer.flags);
        /* Now the client calls EcDoRpcExt2, and its response has this much room. */
        if (ocbus_take(ocbus, session, response, size, &written, &pending, &replies) != OCBUS_OK)
            fail("take");
        printf("%lu replies:", (unsigned long)replies);
        for (i = 0; i < written; i++)
            printf(" %02x", response[i]);
        printf("\n");
        break;
    }
    ocbus_session_close(ocbus, session);
    return ocbus_destroy(ocbus) == OCBUS_OK ? 0 : 1;
}
