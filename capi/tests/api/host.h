/* The host that all tests of the C interface share, and how they check. */
#ifndef OCBUS_TEST_HOST_H
#define OCBUS_TEST_HOST_H

#include <ocbus.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Sessions. */
extern const uint8_t ONE[16], TWO[16], NONE[16];

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

void ask_ids(void *user, const ocbus_t *ocbus, const ocbus_query *query);

void log_line(void *user, int level, const char *line);

void answered(void *user, const ocbus_t *ocbus, uint64_t wait, const uint8_t *session,
                     const ocbus_wait_answer *answer);

ocbus_t *create(struct host *host, const char *configuration);

bool readable(const ocbus_t *ocbus, int limit_ms);

/* Dispatches until `*count` is `wanted`, 20 s at most. */
void until(const ocbus_t *ocbus, const int *count, int wanted);

ocbus_statistics statistics(const ocbus_t *ocbus);

void tell(const ocbus_t *ocbus, uint32_t uid);

/* Parks a wait that must not be answered at once. */
uint64_t park(const ocbus_t *ocbus, const uint8_t *session, struct host *host);

/* Parks a wait that must be answered at once. */
void at_once(const ocbus_t *ocbus, const uint8_t *session, uint32_t outcome, uint32_t result, uint32_t flags);

/* Takes all. */
size_t take(const ocbus_t *ocbus, const uint8_t *session, uint8_t *buffer, size_t size);

/* One for each topic, in the file of that name. */
void test_without_a_handle(void);
void test_null_handles(void);
void test_options(void);
void test_sessions_and_handles(void);
void test_waits_and_replies(void);
void test_async_waits(void);
void test_time_limits(void);
void test_sharing(void);
void test_logons(void);
void test_statistics(void);
void test_destroy(void);
void test_signals(void);
void test_fork(void);
void test_threads(void);

#endif
