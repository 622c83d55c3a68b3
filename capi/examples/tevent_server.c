/* A server on tevent and talloc in the shape of OpenChange's emsmdb and asyncemsmdb: a parked wait for each session, and
 * replies fetched at EcDoRpcExt2. A template: functions have the names of the calls in which a server does the same.
 *
 *     tevent_server 'resolver = --SERVER=127.0.0.1:11211' bob
 *
 * One client is played here: it connects, registers, opens the contents table of each folder that it hears of, and
 * waits for ever. SIGTERM ends it. What happens is printed, one line for each thing.
 */
#include <ocbus.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <talloc.h>
#include <tevent.h>

/* ---- ids: OpenChange's indexing database in a list ------------------------------------------------------------ */

struct entry {
    struct entry *next;
    char *uri;
    uint64_t id;
};

/* The id under a URI, made when it is asked for first: replica 1, a counter in six octets, most significant first; kept
 * as OpenChange does, in a little-endian number. */
static uint64_t indexing_id(TALLOC_CTX *server, struct entry **list, const char *uri)
{
    static uint64_t counter = 0x1000;
    struct entry *entry;
    int i;

    for (entry = *list; entry != NULL; entry = entry->next)
        if (strcmp(entry->uri, uri) == 0)
            return entry->id;
    entry = talloc(server, struct entry);
    entry->uri = talloc_strdup(entry, uri);
    entry->id = 1;
    counter++;
    for (i = 0; i < 6; i++)
        entry->id |= ((counter >> (8 * (5 - i))) & 0xff) << (8 * (i + 2));
    entry->next = *list;
    *list = entry;
    printf("id %016llx %s\n", (unsigned long long)entry->id, uri);
    return entry->id;
}

/* ---- the server ------------------------------------------------------------------------------------------------ */

struct server {
    struct tevent_context *events;
    ocbus_t *ocbus;
    struct entry *index;
    struct session *session;
    bool done;
};

/* An emsmdb session. */
struct session {
    struct server *server;
    uint8_t guid[OCBUS_GUID_OCTETS];
    uint32_t next_handle;
};

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, ocbus_last_error());
    exit(1);
}

/* An answer that comes later, as of a database that is asked without waiting. */
struct late {
    struct server *server;
    uint64_t query;
    uint64_t *mids;
    size_t count;
};

static void answer_late(struct tevent_context *events, struct tevent_immediate *now, void *data)
{
    struct late *late = talloc_get_type_abort(data, struct late);

    (void)events;
    (void)now;
    ocbus_answer_messages(late->server->ocbus, late->query, late->mids, late->count);
    talloc_free(late);
}

static void rop_get_contents_table(struct session *session, uint64_t folder);

/* Called from within ocbus_dispatch(). */
static void ask_ids(void *user, const ocbus_t *ocbus, const ocbus_query *query)
{
    struct server *server = talloc_get_type_abort(user, struct server);
    struct late *late;
    uint64_t folder;
    size_t i;

    switch (query->what) {
    case OCBUS_WHAT_FOLDER:
        folder = indexing_id(server, &server->index, query->sogo_uri);
        /* The played client opens what it hears of; a real one has done so before. */
        if (query->mailbox != NULL)
            rop_get_contents_table(server->session, folder);
        ocbus_answer_folder(ocbus, query->id, folder);
        break;
    case OCBUS_WHAT_MESSAGES:
        late = talloc(server, struct late);
        late->server = server;
        late->query = query->id;
        late->count = query->message_count;
        late->mids = talloc_array(late, uint64_t, late->count);
        for (i = 0; i < late->count; i++)
            late->mids[i] = indexing_id(server, &server->index, query->messages[i].sogo_uri);
        tevent_schedule_immediate(tevent_create_immediate(late), server->events, answer_late, late);
        break;
    default: /* rows are not made here: TableChanged makes the client read again */
        ocbus_answer_unknown(ocbus, query->id);
    }
}

static void log_line(void *user, int level, const char *line)
{
    (void)user;
    fprintf(stderr, "ocbus (%d): %s\n", level, line);
}

/* ---- what the client calls --------------------------------------------------------------------------------------- */

static void ec_do_connect_ex(struct session *session, const char *cn)
{
    if (ocbus_session_open(session->server->ocbus, session->guid, cn, 7) != OCBUS_OK)
        fail("EcDoConnectEx");
}

static void rop_register_notification(struct session *session, const uint8_t *rop, size_t octets)
{
    if (ocbus_subscribe_rop(session->server->ocbus, session->guid, session->next_handle++, rop, octets, NULL) !=
        OCBUS_OK)
        fail("RopRegisterNotification");
}

/* RopGetContentsTable, RopSetColumns, RopQueryRows */
static void rop_get_contents_table(struct session *session, uint64_t folder)
{
    ocbus_t *ocbus = session->server->ocbus;
    uint32_t handle = session->next_handle++;

    if (ocbus_table_add(ocbus, session->guid, handle, 0, OCBUS_TABLE_CONTENTS, folder, 0) != OCBUS_OK ||
        ocbus_table_open_view(ocbus, session->guid, handle) != OCBUS_OK)
        fail("RopGetContentsTable");
    printf("table %x of %016llx\n", (unsigned)handle, (unsigned long long)folder);
}

static void ec_do_async_wait_ex(struct session *session);

/* The end of each response: whole replies, as far as there is room. */
static void ec_do_rpc_ext2(struct session *session)
{
    uint8_t response[32768];
    size_t written, replies, i;
    bool pending;

    do {
        if (ocbus_take(session->server->ocbus, session->guid, response, ocbus_room(sizeof(response), 0, 1), &written,
                       &pending, &replies) != OCBUS_OK)
            fail("EcDoRpcExt2");
        printf("replies %lu ", (unsigned long)replies);
        for (i = 0; i < written; i++)
            printf("%02x", response[i]);
        printf("\n");
        /* RopPending makes the client call again. */
    } while (pending);
}

/* The parked call is answered: in OpenChange, dcesrv_async_reply(). The client fetches and waits again. */
static void answer_wait(struct session *session, const ocbus_wait_answer *answer)
{
    printf("wait %lx %lu\n", (unsigned long)answer->result, (unsigned long)answer->flags);
    if (answer->outcome == OCBUS_OUTCOME_EXITING)
        return;
    if (answer->flags != 0)
        ec_do_rpc_ext2(session);
    ec_do_async_wait_ex(session);
}

/* Called from within ocbus_dispatch(), or ocbus_destroy(). */
static void wait_answered(void *user, const ocbus_t *ocbus, uint64_t wait, const uint8_t *guid,
                          const ocbus_wait_answer *answer)
{
    (void)ocbus;
    (void)wait;
    (void)guid;
    answer_wait(talloc_get_type_abort(user, struct session), answer);
    fflush(stdout);
}

static void ec_do_async_wait_ex(struct session *session)
{
    ocbus_wait_answer answer;
    uint64_t wait;

    if (ocbus_wait_park(session->server->ocbus, session->guid, wait_answered, session, &wait, &answer) != OCBUS_OK)
        fail("EcDoAsyncWaitEx");
    if (wait == 0) /* answered at once */
        answer_wait(session, &answer);
}

/* ---- tevent ------------------------------------------------------------------------------------------------------ */

static void ocbus_readable(struct tevent_context *events, struct tevent_fd *fde, uint16_t flags, void *data)
{
    struct server *server = talloc_get_type_abort(data, struct server);

    (void)events;
    (void)fde;
    (void)flags;
    if (ocbus_dispatch(server->ocbus) != OCBUS_OK)
        fail("ocbus_dispatch");
}

static void terminate(struct tevent_context *events, struct tevent_signal *event, int number, int count, void *info,
                      void *data)
{
    struct server *server = talloc_get_type_abort(data, struct server);

    (void)events;
    (void)event;
    (void)number;
    (void)count;
    (void)info;
    server->done = true;
}

int main(int argc, char **argv)
{
    const uint8_t whole_store[] = { 0x29, 0x00, 0x00, 0x01, 0x7e, 0x00, 0x01 };
    struct server *server = talloc_zero(NULL, struct server);
    ocbus_options *options = ocbus_options_new();
    struct tevent_fd *fde;

    if (argc != 3) {
        fprintf(stderr, "usage: tevent_server CONFIGURATION USER\n");
        return 2;
    }
    server->events = tevent_context_init(server);
    tevent_add_signal(server->events, server, SIGTERM, 0, terminate, server);

    /* Once in the process, behind the last fork. */
    if (ocbus_options_read(options, argv[1]) != OCBUS_OK ||
        ocbus_options_set_ids(options, ask_ids, server) != OCBUS_OK ||
        ocbus_options_set_log(options, OCBUS_LOG_WARNING, log_line, NULL) != OCBUS_OK ||
        ocbus_create(options, &server->ocbus) != OCBUS_OK)
        fail("ocbus_create");
    ocbus_options_free(options);
    fde = tevent_add_fd(server->events, server, ocbus_fd(server->ocbus), TEVENT_FD_READ, ocbus_readable, server);

    server->session = talloc_zero(server, struct session);
    server->session->server = server;
    server->session->next_handle = 0x29;
    memset(server->session->guid, 0x42, sizeof(server->session->guid));
    ec_do_connect_ex(server->session, argv[2]);
    rop_register_notification(server->session, whole_store, sizeof(whole_store));
    ec_do_async_wait_ex(server->session);
    printf("ready\n");
    fflush(stdout);

    while (!server->done)
        if (tevent_loop_once(server->events) != 0)
            fail("tevent_loop_once");

    /* Not polled any more before it is closed; parked waits are answered from within. */
    talloc_free(fde);
    if (ocbus_destroy(server->ocbus) != OCBUS_OK)
        fail("ocbus_destroy");
    talloc_free(server);
    printf("ended\n");
    return 0;
}
