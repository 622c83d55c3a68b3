/* Waits, replies, and how long things may take. */
#define _GNU_SOURCE
#include "host.h"

#include <poll.h>
#include <time.h>

void test_waits_and_replies(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none\nquery_timeout_ms = 20000");
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
    CHECK(host.answers == 2 && !readable(ocbus, 0));
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
    CHECK(host.kept_uid == 9 && host.answers == 2);
    OK(ocbus_answer_messages(ocbus, host.kept, mid, 1));
    until(ocbus, &host.answers, 3);
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) == 38 + 26 + 22 + 10 && octets[16] == 0x99);
    OK(ocbus_answer_messages(ocbus, host.kept, mid, 1)); /* once more: counted */
    OK(ocbus_answer_folder(ocbus, 4711, INBOX));
    CHECK(statistics(ocbus).late_answers == 2);
    FAILS(OCBUS_ERROR_ARGUMENT, "messages", ocbus_answer_messages(ocbus, 1, NULL, 1));
    FAILS(OCBUS_ERROR_ARGUMENT, "messages", ocbus_answer_messages(ocbus, 1, &wait, 1001));
    FAILS(OCBUS_ERROR_ARGUMENT, "row", ocbus_answer_row(ocbus, 1, NULL));

    /* Failed: the folder and its table have changed. */
    host.how = FAILED;
    wait = park(ocbus, ONE, &host);
    tell(ocbus, 10);
    until(ocbus, &host.answers, 4);
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) == 22 + 10);
    CHECK(statistics(ocbus).query_failures == 1 && statistics(ocbus).query_timeouts == 0);
    CHECK(statistics(ocbus).waits_event == 7 && statistics(ocbus).waits_rejected == 1);

    /* A session that is closed answers its wait. */
    wait = park(ocbus, ONE, &host);
    OK(ocbus_session_close(ocbus, ONE));
    until(ocbus, &host.answers, 5);
    CHECK(host.last.outcome == OCBUS_OUTCOME_UNKNOWN_SESSION && host.last.flags == 1);
    OK(ocbus_destroy(ocbus));
}

/* A wait without an event, and a question without an answer. */
void test_time_limits(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none\nwait_ms = 1000\nquery_timeout_ms = 300");
    uint8_t octets[256];
    time_t end = time(NULL) + 20;

    OK(ocbus_session_open(ocbus, ONE, "bob", 7));
    OK(ocbus_subscribe(ocbus, ONE, 0x29, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
    park(ocbus, ONE, &host);
    until(ocbus, &host.answers, 1);
    CHECK(host.last.outcome == OCBUS_OUTCOME_TIMED_OUT && host.last.result == 0 && host.last.flags == 0);
    host.how = NEVER;
    tell(ocbus, 7);
    while (statistics(ocbus).query_timeouts == 0) {
        CHECK(time(NULL) < end);
        readable(ocbus, 10);
        OK(ocbus_dispatch(ocbus));
    }
    /* The folder has changed; if its own question was asked too late on a busy machine, there is no folder to name. */
    CHECK(take(ocbus, ONE, octets, sizeof(octets)) == (host.messages == 1 ? 22 : 0));
    OK(ocbus_destroy(ocbus));
}

/* Without setting `sharing` there is nothing to join, and nothing to write; with it there must be a memcached. */
void test_sharing(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none");
    ocbus_options *options = ocbus_options_new();
    ocbus_t *refused;
    uint64_t wait;

    OK(ocbus_session_open(ocbus, ONE, "bob", 7));
    OK(ocbus_async_connect(ocbus, ONE, TWO));
    FAILS(OCBUS_ERROR_UNKNOWN_SESSION, "unknown", ocbus_async_connect(ocbus, NONE, TWO));
    FAILS(OCBUS_ERROR_ARGUMENT, "NULL", ocbus_async_connect(ocbus, ONE, NULL));
    FAILS(OCBUS_ERROR_ARGUMENT, "NULL", ocbus_async_wait_park(ocbus, NULL, answered, &host, &wait));
    FAILS(OCBUS_ERROR_ARGUMENT, "wait", ocbus_async_wait_park(ocbus, TWO, answered, &host, NULL));
    OK(ocbus_async_wait_park(ocbus, TWO, answered, &host, &wait));
    until(ocbus, &host.answers, 1);
    CHECK(host.last_wait == wait && host.last.outcome == OCBUS_OUTCOME_UNKNOWN_SESSION);
    FAILS(OCBUS_ERROR_UNKNOWN_WAIT, "wait", ocbus_wait_cancel(ocbus, wait));
    CHECK(statistics(ocbus).shared == 0);
    OK(ocbus_destroy(ocbus));

    FAILS(OCBUS_ERROR_CONFIG, "emsmdb", ocbus_options_set(options, "sharing", "yes"));
    OK(ocbus_options_set_ids(options, ask_ids, &host));
    OK(ocbus_options_read(options, "resolver = none\nsharing = both"));
    FAILS(OCBUS_ERROR_CONFIG, "sharing", ocbus_create(options, &refused));
    ocbus_options_free(options);
}

/* Of one asynchronous session one wait at a time, and no more of them than may be, however long memcached is away. */
void test_async_waits(void)
{
    struct host host;
    /* Nobody listens there: a port that only the superuser's programs could have. */
    ocbus_t *ocbus = create(&host, "resolver = --SERVER=127.0.0.1:1\nsharing = asyncemsmdb\nsessions = 2");
    uint64_t first, second, third;
    int i;

    OK(ocbus_async_wait_park(ocbus, ONE, answered, &host, &first));
    OK(ocbus_async_wait_park(ocbus, ONE, answered, &host, &second));
    FAILS(OCBUS_ERROR_LIMIT, "sessions is 2", ocbus_async_wait_park(ocbus, TWO, answered, &host, &third));
    until(ocbus, &host.answers, 1);
    CHECK(host.last_wait == second && host.last.outcome == OCBUS_OUTCOME_REJECTED);
    /* Taken back, it is in nobody's way, at once. */
    for (i = 0; i < 100; i++) {
        OK(ocbus_wait_cancel(ocbus, first));
        OK(ocbus_async_wait_park(ocbus, ONE, answered, &host, &first));
    }
    OK(ocbus_async_wait_park(ocbus, TWO, answered, &host, &third));
    FAILS(OCBUS_ERROR_LIMIT, "sessions is 2", ocbus_async_wait_park(ocbus, TWO, answered, &host, &second));
    OK(ocbus_wait_cancel(ocbus, first));
    OK(ocbus_async_wait_park(ocbus, TWO, answered, &host, &second));
    until(ocbus, &host.answers, 2);
    CHECK(host.last_wait == second && host.last.outcome == OCBUS_OUTCOME_REJECTED);
    OK(ocbus_destroy(ocbus));
    CHECK(host.answers == 3 && host.last_wait == third && host.last.outcome == OCBUS_OUTCOME_EXITING);
}
