/* The border between Dovecot and the Rust half of the plugin: plain values only.
   src/ffi.rs mirrors these declarations; change both together. */
#ifndef OPENCHANGE_SHIM_H
#define OPENCHANGE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct module;

/* A user's settings as Dovecot has them. NULL: not set. */
struct openchange_settings {
	const char *resolver;
	const char *cn;
	const char *backend;
	const char *budget;
	const char *keep_refused;
	const char *charset;
	const char *bus;
};

/* One new mail. Strings may be NULL. Nothing in it outlives the call. */
struct openchange_mail {
	const char *from;
	const char *subject;
	const char *message_id;
	/* UINT64_MAX: unknown */
	uint64_t size;
	/* 0: unknown */
	uint32_t uid;
	/* 1 answered, 2 flagged, 4 deleted, 8 seen, 16 draft */
	uint32_t flags;
};

/* What one committed transaction delivered. Nothing in it outlives the call. */
struct openchange_delivery {
	/* UTF-8, with the namespace's separator */
	const char *mailbox;
	/* as the storage has it, with the list's separator */
	const char *storage_name;
	const struct openchange_mail *mails;
	size_t count;
	/* part of the budget that is spent already */
	uint64_t waited_us;
	/* 0: unknown */
	uint32_t uid_validity;
	char separator;
	char list_separator;
};

/* The Rust half. None of these fails, blocks longer than the budget, or unwinds. */
struct openchange_callbacks {
	/* NULL: the plugin is off for this user. */
	void *(*user_new)(const char *username, bool debug,
			  const struct openchange_settings *set);
	void (*user_free)(void *user);
	/* how long the user's transactions may take */
	uint64_t (*budget_us)(const void *user);
	void (*deliver)(void *user, const struct openchange_delivery *delivery);
};

enum openchange_level {
	OPENCHANGE_LEVEL_DEBUG = 0,
	OPENCHANGE_LEVEL_INFO = 1,
	OPENCHANGE_LEVEL_WARNING = 2,
};

void openchange_shim_init(struct module *module,
			  const struct openchange_callbacks *callbacks);
void openchange_shim_deinit(void);
void openchange_shim_log(int level, const char *line);

#endif
