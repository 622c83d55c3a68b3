/* Sessions, subscriptions and tables. */
#define _GNU_SOURCE
#include "host.h"

void test_sessions_and_handles(void)
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

/* A second mailbox in the session: its events come with its logon, and end the same wait. */
void test_logons(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none");
    uint8_t octets[512];

    host.how = AT_ONCE;
    OK(ocbus_session_open(ocbus, ONE, "office", 7));
    OK(ocbus_session_logon(ocbus, ONE, 5, "bob"));
    OK(ocbus_subscribe(ocbus, ONE, 0x29, 5, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
    OK(ocbus_subscribe(ocbus, ONE, 0x2a, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
    park(ocbus, ONE, &host);
    tell(ocbus, 7);
    until(ocbus, &host.answers, 1);
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) > 38);
    CHECK(octets[0] == 0x2a && octets[1] == 0x29 && octets[5] == 5);
    FAILS(OCBUS_ERROR_DUPLICATE, "logon 5", ocbus_session_logon(ocbus, ONE, 5, "public"));
    FAILS(OCBUS_ERROR_ARGUMENT, "", ocbus_session_logon(ocbus, ONE, 6, "a b"));
    FAILS(OCBUS_ERROR_UNKNOWN_SESSION, "unknown", ocbus_session_logon(ocbus, NONE, 5, "bob"));
    OK(ocbus_session_logoff(ocbus, ONE, 5));
    FAILS(OCBUS_ERROR_UNKNOWN_HANDLE, "logon 5", ocbus_session_logoff(ocbus, ONE, 5));
    FAILS(OCBUS_ERROR_UNKNOWN_HANDLE, "handle", ocbus_release(ocbus, ONE, 0x29));
    OK(ocbus_destroy(ocbus));
}
