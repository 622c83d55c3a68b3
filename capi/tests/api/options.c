/* Options, and calls without a handle. */
#define _GNU_SOURCE
#include "host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

void test_without_a_handle(void)
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
void test_null_handles(void)
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
    NO_HANDLE(ocbus_session_logon(NULL, ONE, 1, "bob"));
    NO_HANDLE(ocbus_session_logoff(NULL, ONE, 1));
    NO_HANDLE(ocbus_subscribe(NULL, ONE, 1, 0, 2, OCBUS_SCOPE_STORE, 0, 0));
    NO_HANDLE(ocbus_subscribe_rop(NULL, ONE, 1, octets, 7, NULL));
    NO_HANDLE(ocbus_release(NULL, ONE, 1));
    NO_HANDLE(ocbus_table_add(NULL, ONE, 1, 0, OCBUS_TABLE_CONTENTS, INBOX, 0));
    NO_HANDLE(ocbus_table_set_columns(NULL, ONE, 1, columns, 1));
    NO_HANDLE(ocbus_table_open_view(NULL, ONE, 1));
    NO_HANDLE(ocbus_table_reset(NULL, ONE, 1));
    NO_HANDLE(ocbus_wait_park(NULL, ONE, NULL, NULL, &wait, &answer));
    NO_HANDLE(ocbus_async_connect(NULL, ONE, TWO));
    NO_HANDLE(ocbus_async_wait_park(NULL, ONE, NULL, NULL, &wait));
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

void test_options(void)
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

    /* A name server that boots after us. */
    OK(ocbus_options_set(options, "resolver", "--SERVER=memcache.no-such-host.invalid"));
    OK(ocbus_create(options, &ocbus));
    ocbus_destroy(ocbus);
    ocbus = NULL;
    OK(ocbus_options_set(options, "resolver", "--SERVER=127.0.0.1:1"));

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
