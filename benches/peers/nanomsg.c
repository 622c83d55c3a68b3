/* libnanomsg beside us: PUSH to PULL over tcp, both in this process on two threads.
   nanomsg PORT MESSAGES OCTETS SINGLES: prints "MESSAGES/s" of a stream, then the nanoseconds of each of SINGLES messages
   sent alone, from send to receipt. */
#include <nanomsg/nn.h>
#include <nanomsg/pipeline.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int pull;
static long messages, octets, singles;
static volatile long long arrived;

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, nn_strerror(nn_errno()));
	exit(1);
}

static void *receive(void *unused)
{
	char *message = malloc(octets);
	long i;

	(void)unused;
	for (i = 0; i < messages; i++)
		if (nn_recv(pull, message, octets, 0) != octets)
			die("recv");
	__atomic_store_n(&arrived, now_ns(), __ATOMIC_RELEASE);
	for (i = 0; i < singles; i++) {
		if (nn_recv(pull, message, octets, 0) != octets)
			die("recv");
		__atomic_store_n(&arrived, now_ns(), __ATOMIC_RELEASE);
	}
	free(message);
	return NULL;
}

static long long wait_arrival(void)
{
	long long at;
	struct timespec nap = { 0, 1000 };

	while ((at = __atomic_exchange_n(&arrived, 0, __ATOMIC_ACQ_REL)) == 0)
		nanosleep(&nap, NULL);
	return at;
}

int main(int argc, char **argv)
{
	char url[64], *message;
	int push, port, timeout = 20000;
	long long begun;
	pthread_t thread;
	long i;

	if (argc != 5)
		return 2;
	port = atoi(argv[1]);
	messages = atol(argv[2]);
	octets = atol(argv[3]);
	singles = atol(argv[4]);
	message = calloc(1, octets);
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", port);
	pull = nn_socket(AF_SP, NN_PULL);
	push = nn_socket(AF_SP, NN_PUSH);
	if (pull < 0 || push < 0 || nn_bind(pull, url) < 0 || nn_connect(push, url) < 0)
		die(url);
	nn_setsockopt(pull, NN_SOL_SOCKET, NN_RCVTIMEO, &timeout, sizeof(timeout));
	pthread_create(&thread, NULL, receive, NULL);
	begun = now_ns();
	for (i = 0; i < messages; i++)
		if (nn_send(push, message, octets, 0) < 0)
			die("send");
	printf("%.0f\n", messages * 1e9 / (wait_arrival() - begun));
	for (i = 0; i < singles; i++) {
		begun = now_ns();
		if (nn_send(push, message, octets, 0) < 0)
			die("send");
		printf("%lld\n", wait_arrival() - begun);
	}
	pthread_join(thread, NULL);
	nn_close(push);
	nn_close(pull);
	free(message);
	return 0;
}
