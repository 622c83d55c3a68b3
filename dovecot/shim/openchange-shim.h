/* The border between Dovecot and the Rust half of the plugin: plain values only.
   src/ffi.rs and src/ffi/values.rs mirror these declarations; change both together. */
#ifndef OPENCHANGE_SHIM_H
#define OPENCHANGE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct module;

/* Every setting, each openchange_NAME in Dovecot's configuration, in the order of src/ffi/values.rs. */
#define OPENCHANGE_SETTINGS(X) \
	X(resolver) \
	X(cn) \
	X(backend) \
	X(budget) \
	X(keep_refused) \
	X(charset) \
	X(bus) \
	X(events) \
	X(folders)

/* A user's settings as Dovecot has them. NULL: not set. */
struct openchange_settings {
#define OPENCHANGE_MEMBER(name) const char *name;
	OPENCHANGE_SETTINGS(OPENCHANGE_MEMBER)
#undef OPENCHANGE_MEMBER
};

/* A mailbox. Nothing in it outlives the call. */
struct openchange_mailbox {
	/* UTF-8, with the namespace's separator, as its owner sees it */
	const char *name;
	/* as the storage has it, with the list's separator */
	const char *storage_name;
	/* as \Junk, separated by spaces; NULL: unknown */
	const char *special_use;
	/* login of its owner; NULL: the session's user */
	const char *owner;
	/* 0: unknown */
	uint32_t uid_validity;
	char separator;
	char list_separator;
};

/* A saved mail. Strings may be NULL. Nothing in it outlives the call. */
struct openchange_mail {
	const char *from;
	const char *subject;
	const char *message_id;
	/* ends with NULL */
	const char *const *keywords;
	/* UINT64_MAX: unknown */
	uint64_t size;
	/* 1 answered, 2 flagged, 4 deleted, 8 seen, 16 draft; others mean nothing */
	uint32_t flags;
};

/* Some UIDs, both included. */
struct openchange_range {
	uint32_t first, last;
};

/* What a commit says. Nothing in it outlives the call. */
struct openchange_commit {
	/* UIDs of what was saved and copied, in order */
	const struct openchange_range *saved;
	size_t saved_count;
	/* grows with each commit to this mailbox, whatever process does it; 0: unknown */
	uint64_t order;
	/* part of the budget that is spent already */
	uint64_t waited_us;
	/* 0: unknown */
	uint32_t uid_validity;
	/* how many messages the mailbox has now, and how many of them without \\Seen, if that is known */
	bool counted;
	uint32_t messages, unseen;
};

enum openchange_mailbox_change {
	OPENCHANGE_MAILBOX_CREATE = 0,
	OPENCHANGE_MAILBOX_DELETE = 1,
	OPENCHANGE_MAILBOX_RENAME = 2,
	OPENCHANGE_MAILBOX_SUBSCRIBE = 3,
	OPENCHANGE_MAILBOX_UNSUBSCRIBE = 4,
};

/* The Rust half. None of these fails, blocks longer than the budget, or unwinds. */
struct openchange_callbacks {
	/* NULL: the plugin is off for this user. */
	void *(*user_new)(const char *username, bool debug,
			  const struct openchange_settings *set);
	void (*user_free)(void *user);
	/* how long the user's transactions may take */
	uint64_t (*budget_us)(const void *user);

	/* Transactions. What is saved in a delivery is new mail. NULL for "transaction" is taken everywhere. */
	bool (*wants_transactions)(const void *user, bool delivery);
	void *(*begin)(const void *user, const struct openchange_mailbox *box,
		       bool delivery);
	void (*save)(void *transaction, const struct openchange_mail *mail);
	/* Mails that had these UIDs there. Flags and keywords of "mail" only, which all of them have here; NULL for
	   "from": as with the copy before. */
	void (*copy)(const void *user, void *transaction,
		     const struct openchange_mailbox *from, uint32_t first,
		     uint32_t last, const struct openchange_mail *mail);
	void (*expunge)(void *transaction, uint32_t first, uint32_t last);
	/* Flags and a keyword of a range of mails changed. UID 0: of the mail that was saved last. */
	void (*flags)(void *transaction, uint32_t first, uint32_t last,
		      uint32_t set, uint32_t clear);
	void (*keyword)(void *transaction, uint32_t first, uint32_t last,
			const char *keyword, bool set);
	/* Where somebody else has changed the mailbox since this session last looked: what was told by the two above
	   is not true, and what was written follows. */
	void (*forget_flags)(void *transaction);
	/* these two end it */
	void (*commit)(void *user, void *transaction,
		       const struct openchange_commit *commit);
	void (*rollback)(void *transaction);

	/* "old" is the former name, of a rename. */
	void (*mailbox)(void *user, int what,
			const struct openchange_mailbox *box,
			const struct openchange_mailbox *old);

	/* So many messages got UIDs in no transaction: Dovecot found them. */
	void (*found)(void *user, const struct openchange_mailbox *box,
		      uint32_t count);

	/* Dovecot has nothing to do. */
	void (*tick)(void *user);
	/* In how many milliseconds a tick is wanted; UINT32_MAX: not at all. */
	uint32_t (*wake_ms)(const void *user);
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
