/* ocbus.h: what makes Outlook refresh, for MAPI servers in C. Made by cbindgen of capi/src: do not edit.
 *
 * capi/README.md goes through it call by call. In short: ocbus_create(), poll ocbus_fd(), call ocbus_dispatch() when it
 * is readable; it calls back in your own thread, and nothing else does. Every function may be called from any thread
 * unless it says otherwise.
 *
 * A function that fails says so by its status, and by ocbus_last_error() why. Pointers must not be NULL unless it
 * says so; a session is always the 16 octets of its GUID, read during the call only. Strings end with a NUL and are
 * UTF-8. FIDs and MIDs are the uint64_t in which OpenChange keeps them: the eight octets of the wire, little-endian.
 * Callbacks must return: no longjmp(), no C++ exception. After ocbus_destroy() nothing may be used that came from it.
 */

#ifndef OCBUS_H
#define OCBUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The octets of a session's GUID, as a GUID stands on the wire (in Samba: of GUID_to_ndr_buf()). The library
 * compares them, and shows them in its log as Samba does.
 */
#define OCBUS_GUID_OCTETS 16

/**
 * Flag of ocbus_table_add(): a hierarchy table of all folders below (Depth).
 */
#define OCBUS_TABLE_DEPTH 1

/**
 * Flag of ocbus_table_add(): the client does not want to be told (NoNotifications).
 */
#define OCBUS_TABLE_NO_NOTIFICATIONS 2

/**
 * What became of a call. New codes may come; treat one that you do not know as a failure.
 */
typedef enum ocbus_status {
    /**
     * Done.
     */
    OCBUS_OK = 0,
    /**
     * An argument is NULL, too long, out of its range or no UTF-8. Nothing was done.
     */
    OCBUS_ERROR_ARGUMENT = 1,
    /**
     * A setting is unknown, out of its range or missing; the message names it.
     */
    OCBUS_ERROR_CONFIG = 2,
    /**
     * No such session: never opened, closed or expired. The client is to connect again.
     */
    OCBUS_ERROR_UNKNOWN_SESSION = 3,
    /**
     * The session has no such subscription or table.
     */
    OCBUS_ERROR_UNKNOWN_HANDLE = 4,
    /**
     * No such wait: answered, cancelled or never parked.
     */
    OCBUS_ERROR_UNKNOWN_WAIT = 5,
    /**
     * A session or a handle of that name is there already.
     */
    OCBUS_ERROR_DUPLICATE = 6,
    /**
     * A limit of the settings is reached.
     */
    OCBUS_ERROR_LIMIT = 7,
    /**
     * Octets are not what they should be; the message says at which one.
     */
    OCBUS_ERROR_MALFORMED = 8,
    /**
     * It is being destroyed.
     */
    OCBUS_ERROR_STOPPING = 9,
    /**
     * It was created before this process forked: see ocbus_create().
     */
    OCBUS_ERROR_FORKED = 10,
    /**
     * Not from within a callback.
     */
    OCBUS_ERROR_BUSY = 11,
    /**
     * The system refused a descriptor, a thread or a socket.
     */
    OCBUS_ERROR_SYSTEM = 12,
    /**
     * A defect of the library, which it survived. Please report the message.
     */
    OCBUS_ERROR_PANIC = 13,
} ocbus_status;

/**
 * How much a line of the log matters.
 */
typedef enum ocbus_log_level {
    /**
     * Something is broken.
     */
    OCBUS_LOG_ERROR = 1,
    /**
     * An administrator should know.
     */
    OCBUS_LOG_WARNING = 2,
    /**
     * What happens now and then.
     */
    OCBUS_LOG_INFO = 3,
    /**
     * What happens with each session.
     */
    OCBUS_LOG_DEBUG = 4,
    /**
     * Everything, a mail's content too.
     */
    OCBUS_LOG_TRACE = 5,
} ocbus_log_level;

/**
 * How a wait is answered (MS-OXCRPC 3.3.4.1).
 */
typedef enum ocbus_outcome {
    /**
     * Something is queued: the client is to fetch it. Result 0, flags 1.
     */
    OCBUS_OUTCOME_EVENT = 1,
    /**
     * Nothing came in time: the client waits again. Result 0, flags 0.
     */
    OCBUS_OUTCOME_TIMED_OUT = 2,
    /**
     * A wait is parked for the session already, or another took its place (second_wait). Result 0x7EE, flags 0.
     */
    OCBUS_OUTCOME_REJECTED = 3,
    /**
     * The session is unknown, closed or expired. Result 0, flags 1: the client makes its next call and finds out.
     */
    OCBUS_OUTCOME_UNKNOWN_SESSION = 4,
    /**
     * The server is stopping. Result 0x3ED, flags 0.
     */
    OCBUS_OUTCOME_EXITING = 5,
} ocbus_outcome;

/**
 * Where something must happen for a subscription to be told.
 */
typedef enum ocbus_scope {
    /**
     * Anywhere.
     */
    OCBUS_SCOPE_STORE = 1,
    /**
     * In a folder.
     */
    OCBUS_SCOPE_FOLDER = 2,
    /**
     * To a message.
     */
    OCBUS_SCOPE_MESSAGE = 3,
} ocbus_scope;

/**
 * What the rows of a table are.
 */
typedef enum ocbus_table_kind {
    /**
     * Folders (RopGetHierarchyTable).
     */
    OCBUS_TABLE_HIERARCHY = 1,
    /**
     * The messages of a folder (RopGetContentsTable).
     */
    OCBUS_TABLE_CONTENTS = 2,
    /**
     * The messages that a search folder finds (RopGetContentsTable on one). Events do not say which these are:
     * what the server finds it tells by ocbus_notify().
     */
    OCBUS_TABLE_SEARCH = 3,
} ocbus_table_kind;

/**
 * What a question asks for.
 */
typedef enum ocbus_what {
    /**
     * The FID of a folder: ocbus_answer_folder().
     */
    OCBUS_WHAT_FOLDER = 1,
    /**
     * The MIDs of messages: ocbus_answer_messages().
     */
    OCBUS_WHAT_MESSAGES = 2,
    /**
     * A row of a table: ocbus_answer_row().
     */
    OCBUS_WHAT_ROW = 3,
} ocbus_what;

/**
 * What ocbus_create() is told: settings by name, and callbacks. Later versions have more names; the functions stay.
 *
 * Not thread-safe: one thread at a time.
 */
typedef struct ocbus_options ocbus_options;

/**
 * The emsmdb sessions of a process.
 *
 * Threads: every function that takes one may be called from any thread at any time, by several at once, but
 * ocbus_destroy(), which must be the last, and while no other is running. No function calls back but ocbus_dispatch()
 * and ocbus_destroy(). The library has at most two threads of its own ("ocbus-1", "ocbus-2"), a few of libnng and now
 * and then one that looks up a name; they run no code of the server. It sets no signal handler, and its threads have all
 * signals blocked.
 *
 * Forks: create it in the process that uses it, after a daemon's forks. In a forked child each function that takes one
 * fails with OCBUS_ERROR_FORKED and does nothing else, at once; ocbus_destroy() closes the child's copy of the
 * descriptor and leaves the parent's sessions alone. Nor can a child create one if its parent has.
 */
typedef struct ocbus_t ocbus_t;

/**
 * A row of a table. This structure never grows.
 */
typedef struct ocbus_row {
    /**
     * Which instance of the message, in a table that has several; otherwise 0.
     */
    uint32_t instance;
    /**
     * The row before it: the FID; 0 if it is the first.
     */
    uint64_t after_folder;
    /**
     * The row before it: the MID; 0 if it is the first, and in a hierarchy table.
     */
    uint64_t after_message;
    /**
     * The row before it: its instance.
     */
    uint32_t after_instance;
    /**
     * The octets of a PropertyRow for the table's columns.
     */
    const uint8_t *data;
    /**
     * How many. More than setting `row_octets` become a TableChanged.
     */
    size_t data_octets;
} ocbus_row;

/**
 * A message of a question. This structure never grows.
 */
typedef struct ocbus_message {
    /**
     * SOGo's URI of it, as OpenChange's indexing database has it: "sogo://bob:bob@mail/folderINBOX/7.eml".
     */
    const char *sogo_uri;
    /**
     * Its UID; 0 if the source knew only a name.
     */
    uint32_t uid;
} ocbus_message;

/**
 * A question. Fields may be added at its end. What a question does not have is 0 or NULL.
 */
typedef struct ocbus_query {
    /**
     * Which: the answer names it.
     */
    uint64_t id;
    /**
     * One of ocbus_what. What a later version asks and the server does not know it answers by
     * ocbus_answer_unknown().
     */
    uint32_t what;
    /**
     * How long the answer is waited for, in milliseconds (setting `query_timeout_ms`).
     */
    uint32_t limit_ms;
    /**
     * Whose mailbox it is about.
     */
    const char *cn;
    /**
     * FOLDER, MESSAGES: SOGo's URI of the folder, "sogo://bob:bob@mail/folderINBOX/".
     */
    const char *sogo_uri;
    /**
     * FOLDER, MESSAGES: the folder's name in UTF-8. NULL: the one above the top-level folders (the IPM subtree), whose
     * URI is "sogo://bob:bob@mail/".
     */
    const char *mailbox;
    /**
     * FOLDER, MESSAGES: the folder's name as its storage has it, in modified UTF-7. NULL as `mailbox`.
     */
    const char *storage_name;
    /**
     * MESSAGES: the folder's UIDVALIDITY; 0 if not known.
     */
    uint32_t uidvalidity;
    /**
     * ROW: the table's handle.
     */
    uint32_t handle;
    /**
     * MESSAGES, ROW: the folder's FID.
     */
    uint64_t folder;
    /**
     * MESSAGES: the messages. Some may be gone by now.
     */
    const struct ocbus_message *messages;
    /**
     * MESSAGES: how many, at least 1.
     */
    size_t message_count;
    /**
     * ROW: the session that has the table open, 16 octets of its GUID.
     */
    const uint8_t *session;
    /**
     * ROW: the MID of the row's message; 0 in a hierarchy table, whose row is `folder`.
     */
    uint64_t message;
    /**
     * ROW: the columns of ocbus_table_set_columns(), in order.
     */
    const uint32_t *columns;
    /**
     * ROW: how many.
     */
    size_t column_count;
    /**
     * ROW: one of ocbus_table_kind.
     */
    uint32_t table_kind;
} ocbus_query;

/**
 * A question to the server: ids of folders and messages, and rows of tables. It answers by one of the
 * ocbus_answer_ functions, in the callback or later, within `limit_ms`; whoever answers later keeps `query->id` and
 * copies what else it needs. Without an answer less is told: the folder and its tables have changed.
 *
 * Called from within ocbus_dispatch() only, in the thread that calls it. Ownership: `query` and all it points to are
 * the library's, valid until the callback returns. It may call any function of the library but ocbus_dispatch() and
 * ocbus_destroy().
 */
typedef void (*ocbus_ids_callback)(void *user, const struct ocbus_t *ocbus, const struct ocbus_query *query);

/**
 * A line of the log: one line in UTF-8 without its end, control characters escaped, as in
 * `registrations wait until it answers (event=resolver_lost, reason=...)`. `level` is one of ocbus_log_level.
 *
 * Called from within ocbus_dispatch() and ocbus_destroy() only, in the thread that calls them. Ownership: `line` is
 * the library's, valid until the callback returns. It must call no function that takes an ocbus_t: of the last lines
 * the handle is gone already.
 */
typedef void (*ocbus_log_callback)(void *user, int level, const char *line);

/**
 * What the library holds now, and what it has done since ocbus_create(). Fields may be added at its end.
 */
typedef struct ocbus_statistics {
    /**
     * Set by the caller to `sizeof(ocbus_statistics)`: how much it knows. Set by the library to how much it wrote.
     */
    size_t size;
    /**
     * Open sessions, now.
     */
    uint64_t sessions;
    /**
     * Users with a session, or within their grace, now.
     */
    uint64_t users;
    /**
     * Parked waits, now.
     */
    uint64_t parked;
    /**
     * Events that wait for ids, now.
     */
    uint64_t pending;
    /**
     * Replies in all queues, now.
     */
    uint64_t queued_replies;
    /**
     * Octets of these, now.
     */
    uint64_t queued_octets;
    /**
     * Events taken; resyncs are among them.
     */
    uint64_t events;
    /**
     * Events for users without a session.
     */
    uint64_t unheard;
    /**
     * Resyncs.
     */
    uint64_t resyncs;
    /**
     * Replies put into queues.
     */
    uint64_t queued;
    /**
     * Replies that one in the queue already says, or was made to say.
     */
    uint64_t folded;
    /**
     * Replies that did not fit into a full queue; a resync stands for them.
     */
    uint64_t lost;
    /**
     * Times that a queue was full.
     */
    uint64_t overflows;
    /**
     * Replies fetched.
     */
    uint64_t taken;
    /**
     * Questions to the server.
     */
    uint64_t queries;
    /**
     * Of these, unanswered in time.
     */
    uint64_t query_timeouts;
    /**
     * Of these, answered as failed, or by something else than was asked.
     */
    uint64_t query_failures;
    /**
     * Of these, answered as unknown; messages count each.
     */
    uint64_t query_unknown;
    /**
     * Answers that came too late, or to nothing that was asked.
     */
    uint64_t late_answers;
    /**
     * Events of which an id was missing, so that less was told.
     */
    uint64_t events_without_ids;
    /**
     * Events that came while too many waited for ids.
     */
    uint64_t events_over;
    /**
     * Waits answered because something was queued.
     */
    uint64_t waits_event;
    /**
     * Waits answered because their time was over.
     */
    uint64_t waits_timed_out;
    /**
     * Waits answered with 0x7EE.
     */
    uint64_t waits_rejected;
    /**
     * Waits for a session that there is not, or that ended meanwhile.
     */
    uint64_t waits_unknown;
    /**
     * Waits answered because the server stops.
     */
    uint64_t waits_exiting;
    /**
     * Sessions that nobody called for as long as they may idle.
     */
    uint64_t expired;
    /**
     * Sessions refused because of a limit.
     */
    uint64_t refused;
    /**
     * Events that came to the bus, those that came twice not among them.
     */
    uint64_t bus_published;
    /**
     * Events that came twice.
     */
    uint64_t bus_duplicates;
    /**
     * Events that the bus's queue lost; a resync stands for them.
     */
    uint64_t bus_lost;
    /**
     * Batches taken at the endpoint.
     */
    uint64_t batches;
    /**
     * Mails told by OpenChange v1 payloads.
     */
    uint64_t legacy_events;
    /**
     * Batches, payloads and events that could not be read.
     */
    uint64_t malformed;
    /**
     * Events for users without a session here.
     */
    uint64_t strangers;
    /**
     * Connections from outside the trusted networks that were turned away.
     */
    uint64_t rejected_peers;
    /**
     * Calls on the resolver that failed.
     */
    uint64_t resolver_failures;
    /**
     * Registrations that somebody else had removed or forgotten, and that were made again.
     */
    uint64_t registrations_lost;
    /**
     * Shared sessions (setting `sharing`), now; those among them whose records are still to be removed.
     */
    uint64_t shared;
    /**
     * Octets of replies appended to `deliver:`.
     */
    uint64_t shared_appended_octets;
    /**
     * Octets of replies taken from it.
     */
    uint64_t shared_taken_octets;
    /**
     * Times that `deliver:` was full, so that a resync took the place of what waited.
     */
    uint64_t shared_full;
    /**
     * Times that memcached had forgotten replies before they were fetched; a resync stands for them.
     */
    uint64_t shared_forgotten;
    /**
     * Calls on memcached for shared sessions that failed. They are repeated.
     */
    uint64_t shared_failures;
} ocbus_statistics;

/**
 * The answer of EcDoAsyncWaitEx. This structure never grows.
 */
typedef struct ocbus_wait_answer {
    /**
     * One of ocbus_outcome.
     */
    uint32_t outcome;
    /**
     * The call's return value: 0, 0x7EE or 0x3ED.
     */
    uint32_t result;
    /**
     * pulFlagsOut: 1 if the client is to fetch notifications.
     */
    uint32_t flags;
} ocbus_wait_answer;

/**
 * A parked wait is answered: now the server answers its client's call. Called once for each wait that was parked
 * with it, unless ocbus_wait_cancel() was called before.
 *
 * Called from within ocbus_dispatch() and ocbus_destroy() only, in the thread that calls them. `session`: the 16
 * octets of its GUID. Ownership: `session` and `answer` are the library's, valid until the callback returns. It may
 * call any function of the library but ocbus_dispatch() and ocbus_destroy(): ocbus_wait_park() too.
 */
typedef void (*ocbus_wait_callback)(void *user,
                                    const struct ocbus_t *ocbus,
                                    uint64_t wait,
                                    const uint8_t *session,
                                    const struct ocbus_wait_answer *answer);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, such as "0.1.0". Within 0.1 and within any later major version, functions and names of
 * settings are only added.
 *
 * Ownership: the library's, valid for ever. Threads: any. Errors: none; never NULL.
 */
const char *ocbus_version(void);

/**
 * Starts: binds the endpoint that other processes send events to (setting `bind`) and starts the threads. A resolver
 * that does not answer, or whose name is not known yet, is no error: users are registered as soon as it does. To be
 * called when the process does not fork any more, see ocbus_t.
 *
 * Ownership: `options` stay the caller's, and may be freed at once. `*ocbus` is the caller's, to be given to
 * ocbus_destroy(); NULL at an error. Threads: any. Errors: OCBUS_ERROR_ARGUMENT (no ids callback),
 * OCBUS_ERROR_CONFIG (the message names the setting), OCBUS_ERROR_SYSTEM (the endpoint, a thread, a descriptor),
 * OCBUS_ERROR_FORKED.
 */
enum ocbus_status ocbus_create(const struct ocbus_options *options,
                               struct ocbus_t **ocbus);

/**
 * The descriptor to be polled: it is readable as long as ocbus_dispatch() or ocbus_wait_next() has something to do. One for
 * the whole life of `ocbus`, level-triggered; only to be polled, never to be read, written or closed.
 *
 * Ownership: the library's. Threads: any. Errors: -1, and ocbus_last_status() says why.
 */
int ocbus_fd(const struct ocbus_t *ocbus);

/**
 * Calls the callbacks for all that has happened: lines of the log, answered waits, questions. Never waits. To be called
 * when ocbus_fd() is readable; what comes up meanwhile makes it readable again.
 *
 * Threads: any, and callbacks are called in it. Several at once are right if the callbacks expect it; a server with one
 * thread calls it from there. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_BUSY (from within a callback).
 */
enum ocbus_status ocbus_dispatch(const struct ocbus_t *ocbus);

/**
 * Ends: answers every parked wait with OCBUS_OUTCOME_EXITING by its callback, takes the users' registrations back,
 * gives the log its last lines, ends the threads and frees all. Takes as long as setting `stop_timeout_ms` at most,
 * plus what the callbacks take. Afterwards `ocbus` must not be used any more, nor its descriptor polled. NULL is right.
 *
 * In a forked child it closes the child's copy of the descriptor, and nothing else: see ocbus_t.
 *
 * Threads: any, while no other call with it is running. Errors: OCBUS_ERROR_BUSY (from within a callback, or while
 * one is running; it lives on). A wait without a callback is not told.
 */
enum ocbus_status ocbus_destroy(struct ocbus_t *ocbus);

/**
 * Answers OCBUS_WHAT_FOLDER: the folder's FID, as OpenChange keeps it in a uint64_t. An answer that comes too late,
 * or for the second time, is counted and otherwise nothing; that holds for all answers.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
 */
enum ocbus_status ocbus_answer_folder(const struct ocbus_t *ocbus,
                                      uint64_t query,
                                      uint64_t folder);

/**
 * Answers OCBUS_WHAT_MESSAGES: `count` MIDs, one for each message of the question and in its order; 0 where there is
 * none (any more, or yet).
 *
 * Ownership: `messages` is read during the call only. Threads: any. Errors: OCBUS_ERROR_ARGUMENT. Another number of
 * MIDs than was asked counts as ocbus_answer_failed().
 */
enum ocbus_status ocbus_answer_messages(const struct ocbus_t *ocbus,
                                        uint64_t query,
                                        const uint64_t *messages,
                                        size_t count);

/**
 * Answers OCBUS_WHAT_ROW.
 *
 * Ownership: `row` and its data are read during the call only. Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
 */
enum ocbus_status ocbus_answer_row(const struct ocbus_t *ocbus, uint64_t query, const struct ocbus_row *row);

/**
 * Answers any question: there is no such folder, message or row. Nobody is told of a folder that the server does
 * not have.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
 */
enum ocbus_status ocbus_answer_unknown(const struct ocbus_t *ocbus,
                                       uint64_t query);

/**
 * Answers any question: it could not be found out, as a database does not answer. What is known is told: the folder and
 * its tables have changed.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
 */
enum ocbus_status ocbus_answer_failed(const struct ocbus_t *ocbus,
                                      uint64_t query);

/**
 * Options with every default.
 *
 * Ownership: the caller's, to be given to ocbus_options_free(). Threads: any. Errors: none; never NULL.
 */
struct ocbus_options *ocbus_options_new(void);

/**
 * Frees options. NULL is right. What was created with them does not need them any more.
 */
void ocbus_options_free(struct ocbus_options *options);

/**
 * Changes one setting. docs/settings.md has all names, with ranges and defaults; "resolver" is the one that matters: the
 * libmemcached configuration string that Dovecot's plugin has as openchange_resolver, or "none" for a server that no
 * other process sends events to. Some ranges are checked by ocbus_create() only.
 *
 * Ownership: the strings are copied. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_CONFIG (no such setting, or a wrong
 * value; nothing is changed).
 */
enum ocbus_status ocbus_options_set(struct ocbus_options *options,
                                    const char *name,
                                    const char *value);

/**
 * Changes settings by a text, one in each line: "name = value". Spaces around both are left out; empty lines, and lines that
 * begin with '#' or ';', say nothing. Either all of them are changed or, at an error, none.
 *
 * Ownership: the text is copied. Errors: as ocbus_options_set(); the message names the line.
 */
enum ocbus_status ocbus_options_read(struct ocbus_options *options,
                                     const char *configuration);

/**
 * Sets the callback that answers questions, and what it is given. ocbus_create() needs one.
 *
 * Ownership: `user` must live until ocbus_destroy() has returned. Errors: OCBUS_ERROR_ARGUMENT (NULL).
 */
enum ocbus_status ocbus_options_set_ids(struct ocbus_options *options,
                                        ocbus_ids_callback callback,
                                        void *user);

/**
 * Sets the callback that gets the library's log up to a level, one of ocbus_log_level. Without one there is no log:
 * nothing is ever written to standard error. There is one log for the process: with several ocbus_t, each gets all lines.
 * At most 1,000 lines wait to be dispatched; of more the number is told.
 *
 * Ownership: `user` must live until ocbus_destroy() has returned. Errors: OCBUS_ERROR_ARGUMENT.
 */
enum ocbus_status ocbus_options_set_log(struct ocbus_options *options,
                                        uint32_t level,
                                        ocbus_log_callback callback,
                                        void *user);

/**
 * The octets that a response has left for notifications: the `size` of ocbus_take(). `pcb_out`: the size of the
 * client's buffer (EcDoRpcExt2's pcbOut, MaxRopOut of MAPI/HTTP). `responses`: the octets of the normal ROP responses
 * in it. `handles`: the entries of its table of handles. It is
 * `min(pcb_out, 32768) - 8 - 2 - responses - 4 * handles`, 0 if that is negative.
 *
 * Threads: any. Errors: none.
 */
size_t ocbus_room(size_t pcb_out,
                  size_t responses,
                  size_t handles);

/**
 * Moves a session's replies into `buffer`, at the end of a response: whole RopNotify replies, in order, and behind
 * them a RopPending if some are left and its 3 octets fit. `size`: what may be written at most (ocbus_room()). What
 * does not fit stays for the next time. `*written`: the octets written. `*pending` (may be NULL): whether some are
 * left; `*replies` (may be NULL): how many RopNotify were written.
 *
 * With `size` 0 nothing is taken, and `buffer` may be NULL.
 *
 * With setting `sharing` the replies are in memcached, and this waits for it, for setting `resolver_timeout_ms` at most. While
 * it is away nothing is taken and nothing lost. Of a session that was opened in another process nothing is taken.
 *
 * Ownership: `buffer` is the caller's. Threads: any. Errors: OCBUS_ERROR_ARGUMENT (nothing is taken),
 * OCBUS_ERROR_UNKNOWN_SESSION.
 */
enum ocbus_status ocbus_take(const struct ocbus_t *ocbus,
                             const uint8_t *session,
                             uint8_t *buffer,
                             size_t size,
                             size_t *written,
                             bool *pending,
                             size_t *replies);

/**
 * Whether replies wait for a session in this process. Does not count as a call of its client.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION.
 */
enum ocbus_status ocbus_has_replies(const struct ocbus_t *ocbus, const uint8_t *session, bool *has);

/**
 * Opens a session (EcDoConnectEx, MAPI/HTTP Connect). `session`: its GUID, 16 octets, another for each. `cn`: whose
 * mailbox it shows, the name under which the Dovecot plugin looks its listeners up (openchange_cn: a username or an
 * address; at most 241 octets, no spaces). `index`: the session index that the client was told; it stands in
 * RopPending.
 *
 * Does not wait: the user is registered with the resolver meanwhile. What came before that is made good: the
 * session is told to look again. A resolver that does not answer is no error.
 *
 * Ownership: the arguments are copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_DUPLICATE (such a session
 * is open), OCBUS_ERROR_LIMIT (settings `sessions_per_user`, `sessions`).
 */
enum ocbus_status ocbus_session_open(const struct ocbus_t *ocbus,
                                     const uint8_t *session,
                                     const char *cn,
                                     uint16_t index);

/**
 * Ties an asynchronous session to a session (EcDoAsyncConnectEx), so that asyncemsmdb finds it in another process: writes
 * OpenChange's `session:`. `async_session`: the GUID of the handle that the client is given, 16 octets. Without setting
 * `sharing` nothing is to be done, and nothing is done.
 *
 * Waits for memcached, for setting `resolver_timeout_ms` at most. That it is away is no error: the record is written when
 * it is back.
 *
 * Ownership: the arguments are copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION.
 */
enum ocbus_status ocbus_async_connect(const struct ocbus_t *ocbus,
                                      const uint8_t *session,
                                      const uint8_t *async_session);

/**
 * The client made a call: its session lives on. Every other call for a session says so too but
 * ocbus_has_replies() and ocbus_notify(); a session that nobody calls for `idle_s` ends.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION.
 */
enum ocbus_status ocbus_session_touch(const struct ocbus_t *ocbus, const uint8_t *session);

/**
 * A client has logged on to another mailbox in its session (RopLogon): a shared one, public folders. What is opened with
 * this `logon_id` from now on (ocbus_subscribe(), ocbus_table_add()) is told of the events of `cn`; a `logon_id` of which
 * the library was not told is the session's own mailbox. One queue and one wait are for all of them. At most 64 others.
 *
 * Does not wait: the user is registered with the resolver meanwhile, and what came before that is made good.
 *
 * Ownership: the arguments are copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION,
 * OCBUS_ERROR_DUPLICATE (something is open in this logon of another mailbox), OCBUS_ERROR_LIMIT.
 */
enum ocbus_status ocbus_session_logon(const struct ocbus_t *ocbus,
                                      const uint8_t *session,
                                      uint8_t logon_id,
                                      const char *cn);

/**
 * The client has released a logon (RopRelease), and with it its subscriptions and tables.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE (nothing was there).
 */
enum ocbus_status ocbus_session_logoff(const struct ocbus_t *ocbus,
                                       const uint8_t *session,
                                       uint8_t logon_id);

/**
 * Closes a session (EcDoDisconnect, MAPI/HTTP Disconnect, a context handle that was run down). Its subscriptions,
 * tables and replies are gone; its parked wait is answered with OCBUS_OUTCOME_UNKNOWN_SESSION.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION.
 */
enum ocbus_status ocbus_session_close(const struct ocbus_t *ocbus,
                                      const uint8_t *session);

/**
 * Fills the part of `*statistics` that `statistics->size` covers.
 *
 * Ownership: the caller's. Threads: any. Errors: OCBUS_ERROR_ARGUMENT (NULL, or `size` is not that of a structure).
 */
enum ocbus_status ocbus_statistics_read(const struct ocbus_t *ocbus,
                                        struct ocbus_statistics *statistics);

/**
 * The status of the last call that failed in this thread; OCBUS_OK if none has. A call that succeeds does not
 * change it.
 *
 * Threads: each has its own. Errors: none.
 */
enum ocbus_status ocbus_last_status(void);

/**
 * Why the last call in this thread failed: one sentence in UTF-8 for the log, empty if none has. It names the
 * argument or the setting, its value, and what would be right.
 *
 * Ownership: the library's, valid until the next call that fails in this thread, or the thread ends. Threads:
 * each has its own. Errors: none; never NULL.
 */
const char *ocbus_last_error(void);

/**
 * The name of a status, such as "unknown session"; "unknown status" for a number that is none.
 *
 * Ownership: the library's, valid for ever. Threads: any. Errors: none; never NULL.
 */
const char *ocbus_status_name(uint32_t status);

/**
 * Adds a subscription (RopRegisterNotification). `handle`: the one that the server put at the request's output
 * index; it stands in each RopNotify. `types`: the request's mask (0x0002 new mail, 0x0004 created, 0x0008 deleted,
 * 0x0010 modified, 0x0020 moved, 0x0040 copied). `scope`: one of ocbus_scope; `folder` (a FID) is used for
 * OCBUS_SCOPE_FOLDER and OCBUS_SCOPE_MESSAGE, `message` (a MID) for OCBUS_SCOPE_MESSAGE, else they must be 0.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_DUPLICATE (the handle is a
 * subscription or a table of the session), OCBUS_ERROR_LIMIT (setting `handles_per_session`).
 */
enum ocbus_status ocbus_subscribe(const struct ocbus_t *ocbus,
                                  const uint8_t *session,
                                  uint32_t handle,
                                  uint8_t logon_id,
                                  uint16_t types,
                                  uint32_t scope,
                                  uint64_t folder,
                                  uint64_t message);

/**
 * Adds a subscription as ocbus_subscribe() does, from the octets of the request: `rop` points to its RopId, 0x29.
 * What stands behind it is left alone; `*consumed` (may be NULL) is how many octets the request had.
 *
 * Ownership: `rop` is read during the call only. Threads: any. Errors: as ocbus_subscribe(), and
 * OCBUS_ERROR_MALFORMED (no such request, or the octets end within it).
 */
enum ocbus_status ocbus_subscribe_rop(const struct ocbus_t *ocbus,
                                      const uint8_t *session,
                                      uint32_t handle,
                                      const uint8_t *rop,
                                      size_t octets,
                                      size_t *consumed);

/**
 * Removes a subscription or a table (RopRelease). What waits for it is taken out. A server may call it for every
 * handle that is released: one that is neither is OCBUS_ERROR_UNKNOWN_HANDLE, and nothing happens.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE.
 */
enum ocbus_status ocbus_release(const struct ocbus_t *ocbus,
                                const uint8_t *session,
                                uint32_t handle);

/**
 * Adds a table (RopGetHierarchyTable, RopGetContentsTable). Nothing is told of it before ocbus_table_open_view().
 * `handle`: the table object's; it stands in each RopNotify. `kind`: one of ocbus_table_kind. `folder`: the FID of the
 * folder that it shows. `flags`: OCBUS_TABLE_DEPTH, OCBUS_TABLE_NO_NOTIFICATIONS, both or 0. It ends by
 * ocbus_release().
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_DUPLICATE,
 * OCBUS_ERROR_LIMIT (setting `handles_per_session`).
 */
enum ocbus_status ocbus_table_add(const struct ocbus_t *ocbus,
                                  const uint8_t *session,
                                  uint32_t handle,
                                  uint8_t logon_id,
                                  uint32_t kind,
                                  uint64_t folder,
                                  uint32_t flags);

/**
 * The client set the columns of a table (RopSetColumns): `count` property tags, `(id << 16) | type`, at most 4096. From
 * now on the ids callback is asked for rows (OCBUS_WHAT_ROW), to be told one by one; with `count` 0 it is not, and a
 * change is told by TableChanged, which makes the client read again. Not to be called by a server that cannot make rows.
 *
 * Ownership: `columns` is copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION,
 * OCBUS_ERROR_UNKNOWN_HANDLE.
 */
enum ocbus_status ocbus_table_set_columns(const struct ocbus_t *ocbus,
                                          const uint8_t *session,
                                          uint32_t handle,
                                          const uint32_t *columns,
                                          size_t count);

/**
 * The client has read rows of a table (RopQueryRows, RopFindRow, ...): from now on it is told of changes. Calling it
 * again, at each such ROP, changes nothing.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE.
 */
enum ocbus_status ocbus_table_open_view(const struct ocbus_t *ocbus,
                                        const uint8_t *session,
                                        uint32_t handle);

/**
 * The client has reset a table (RopResetTable): its columns are gone, what waits for it is taken out, and nothing is
 * told of it until the next ocbus_table_open_view().
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE.
 */
enum ocbus_status ocbus_table_reset(const struct ocbus_t *ocbus,
                                    const uint8_t *session,
                                    uint32_t handle);

/**
 * Queues what the server has seen itself and the bus does not tell: `rop` is one whole RopNotify (RopId 0x2A), with
 * the handle of a subscription or, for a table's event, of a table of this session. The logon id in it is replaced by
 * that of the handle. What a client did itself in this session it need not be told.
 *
 * Ownership: `rop` is read during the call only. Threads: any. Errors: OCBUS_ERROR_ARGUMENT,
 * OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE, OCBUS_ERROR_MALFORMED (no RopNotify, or more than one),
 * OCBUS_ERROR_LIMIT (larger than half of setting `queue_octets`).
 */
enum ocbus_status ocbus_notify(const struct ocbus_t *ocbus,
                               const uint8_t *session,
                               const uint8_t *rop,
                               size_t octets);

/**
 * Tells the sessions of a user in this process of a new mail that the server itself put into a folder, and of which
 * Dovecot's plugin does not tell. `folder`: the storage name in modified UTF-7, as SOGo's URI has it ("INBOX");
 * `separator`: between its parts ('/', '.'). `uid`: the mail's UID, not 0. `messages`, `unseen`: how many are in the folder
 * now; -1 if not known.
 *
 * Ownership: the arguments are copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
 */
enum ocbus_status ocbus_tell_new_mail(const struct ocbus_t *ocbus,
                                      const char *cn,
                                      const char *folder,
                                      char separator,
                                      uint32_t uid,
                                      int64_t messages,
                                      int64_t unseen);

/**
 * Parks a wait of a session (EcDoAsyncWaitEx, MAPI/HTTP NotificationWait), or says at once how it is answered:
 * `*wait` is 0 then, and `*answer` the answer. That is so when something is queued already, the session is unknown,
 * another wait is parked, or the server stops: all of these are answers for the client and no errors of this call.
 * Otherwise `*wait` is its number, and `*answer` is all zero. After 297 s (setting `wait_ms`) without an event it is
 * answered so.
 *
 * `callback` (with `user`) gets the answer in ocbus_dispatch(). NULL: the answer is fetched by ocbus_wait_next().
 *
 * Ownership: `session` is copied; `user` must live until the callback was called, ocbus_wait_cancel() or
 * ocbus_destroy() has returned. Threads: any. Errors: OCBUS_ERROR_ARGUMENT (`session`, `wait` or `answer` is NULL).
 */
enum ocbus_status ocbus_wait_park(const struct ocbus_t *ocbus,
                                  const uint8_t *session,
                                  ocbus_wait_callback callback,
                                  void *user,
                                  uint64_t *wait,
                                  struct ocbus_wait_answer *answer);

/**
 * Parks a wait by its asynchronous session (EcDoAsyncWaitEx in asyncemsmdb; setting `sharing` is asyncemsmdb or both): the
 * session is found in OpenChange's records, and its user is registered, by our own threads. `*wait` is its number. Always
 * answered later, as with ocbus_wait_park(), with the GUID of the asynchronous session in the place of the session's:
 * OCBUS_OUTCOME_UNKNOWN_SESSION where `session:` is not there. A memcached that is away is waited for, no longer than
 * setting `wait_ms`. The replies are fetched by the process that has opened the session.
 *
 * At most one waits for each asynchronous session, memcached there or not: of two, one is answered with
 * OCBUS_OUTCOME_REJECTED (setting `second_wait`). At most as many as setting `sessions` are parked, or answered without the
 * host's having been told: of one more the call fails, and its client is best told that nothing came in time.
 *
 * Ownership, threads: as with ocbus_wait_park(). Errors: OCBUS_ERROR_ARGUMENT (`async_session` or `wait` is NULL),
 * OCBUS_ERROR_LIMIT.
 */
enum ocbus_status ocbus_async_wait_park(const struct ocbus_t *ocbus,
                                        const uint8_t *async_session,
                                        ocbus_wait_callback callback,
                                        void *user,
                                        uint64_t *wait);

/**
 * Takes a wait back, as its client is gone: its callback is not called any more (if it is not running in another
 * thread just now), and ocbus_wait_next() does not give it. What would have ended it is still queued and ends the next
 * wait at once.
 *
 * Threads: any. Errors: OCBUS_ERROR_UNKNOWN_WAIT (it was answered, and its callback was called; or it was never parked).
 */
enum ocbus_status ocbus_wait_cancel(const struct ocbus_t *ocbus,
                                    uint64_t wait);

/**
 * Gives an answered wait that was parked without a callback: its number in `*wait`, the GUID of its session in
 * `session` (16 octets; may be NULL), its answer in `*answer`. `*wait` is 0 if there is none. To be called until then
 * whenever ocbus_fd() is readable, by who parks waits without a callback.
 *
 * Threads: any; each answer is given once. Errors: OCBUS_ERROR_ARGUMENT (`wait` or `answer` is NULL).
 */
enum ocbus_status ocbus_wait_next(const struct ocbus_t *ocbus,
                                  uint64_t *wait,
                                  uint8_t *session,
                                  struct ocbus_wait_answer *answer);

/**
 * The body of a MAPI/HTTP NotificationWait response for an outcome: 16 octets to `body`.
 *
 * Threads: any. Errors: OCBUS_ERROR_ARGUMENT (`outcome` is none of ocbus_outcome, `body` is NULL).
 */
enum ocbus_status ocbus_wait_body(uint32_t outcome, uint8_t *body);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OCBUS_H */
