/* Statistics, and the end. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>

void test_statistics(void)
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
    /* A folder that the server does not have: nobody is told. */
    host.how = UNKNOWN;
    OK(ocbus_subscribe(ocbus, ONE, 0x29, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
    tell(ocbus, 7);
    until(ocbus, &host.folders, 1);
    now = statistics(ocbus);
    CHECK(now.query_unknown == 1 && now.events == 1 && now.queued == 0 && now.pending == 0);
    OK(ocbus_destroy(ocbus));
}

/* Two handles, a policy, and parked waits at the end. */
void test_destroy(void)
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
