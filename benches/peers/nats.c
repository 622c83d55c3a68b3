/* NATS core through its own C client, as a program has it: published on one connection, taken by a callback on another.
   nats PORT MESSAGES OCTETS SINGLES: prints "MESSAGES/s" of a stream, then the nanoseconds of each of SINGLES messages
   published alone, from the publish to the callback: over a connection that sends at once, while the stream's gathers for
   up to a millisecond, as is the client's default. */
#include <nats/nats.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long messages, taken;
static long long arrived_ns;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void check(natsStatus status, const char *what)
{
	if (status == NATS_OK)
		return;
	fprintf(stderr, "%s: %s\n", what, natsStatus_GetText(status));
	exit(1);
}

/* On a thread of the library. The time is taken before anybody is woken. */
static void take(natsConnection *connection, natsSubscription *subscription, natsMsg *message, void *unused)
{
	long long now = now_ns();

	(void)connection;
	(void)subscription;
	(void)unused;
	natsMsg_Destroy(message);
	taken++;
	if (taken < messages)
		return;
	pthread_mutex_lock(&lock);
	arrived_ns = now;
	pthread_cond_signal(&arrived);
	pthread_mutex_unlock(&lock);
}

static long long wait_arrival(void)
{
	long long at;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	pthread_mutex_lock(&lock);
	while (arrived_ns == 0)
		if (pthread_cond_timedwait(&arrived, &lock, &until) != 0) {
			fprintf(stderr, "%ld of %ld messages within 20 s\n", taken, messages);
			exit(1);
		}
	at = arrived_ns;
	arrived_ns = 0;
	pthread_mutex_unlock(&lock);
	return at;
}

int main(int argc, char **argv)
{
	natsConnection *publisher, *prompt, *subscriber;
	natsOptions *options;
	natsSubscription *subscription;
	long octets, singles, i;
	long long begun;
	char url[64], *payload;

	if (argc != 5)
		return 2;
	snprintf(url, sizeof(url), "nats://127.0.0.1:%d", atoi(argv[1]));
	messages = atol(argv[2]);
	octets = atol(argv[3]);
	singles = atol(argv[4]);
	payload = calloc(1, octets);
	check(natsConnection_ConnectTo(&publisher, url), url);
	check(natsOptions_Create(&options), "options");
	check(natsOptions_SetURL(options, url), url);
	check(natsOptions_SetSendAsap(options, true), "options");
	check(natsConnection_Connect(&prompt, options), url);
	check(natsConnection_ConnectTo(&subscriber, url), url);
	check(natsConnection_Subscribe(&subscription, subscriber, "client", take, NULL), "subscribe");
	check(natsSubscription_SetPendingLimits(subscription, -1, -1), "limits");
	check(natsConnection_Flush(subscriber), "flush");

	begun = now_ns();
	for (i = 0; i < messages; i++)
		check(natsConnection_Publish(publisher, "client", payload, octets), "publish");
	printf("%.0f\n", messages * 1e9 / (wait_arrival() - begun));
	for (i = 0; i < singles; i++) {
		begun = now_ns();
		check(natsConnection_Publish(prompt, "client", payload, octets), "publish");
		printf("%lld\n", wait_arrival() - begun);
	}
	natsSubscription_Destroy(subscription);
	natsConnection_Destroy(subscriber);
	natsConnection_Destroy(prompt);
	natsConnection_Destroy(publisher);
	natsOptions_Destroy(options);
	nats_Close();
	free(payload);
	return 0;
}
