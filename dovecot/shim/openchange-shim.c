/* The only file that knows Dovecot's structs. It reads them and hands plain values to Rust; it decides nothing but
   what counts as a delivery, and whose a mailbox is. Written for 2.2.9 to 2.4; what differs stands in
   openchange-versions.h. */

/* clock_gettime, nanosleep, lstat */
#ifndef _GNU_SOURCE
#  define _GNU_SOURCE
#endif

#include "lib.h"
#include "array.h"
#include "ioloop.h"
#include "seq-range-array.h"
#include "module-context.h"
#include "mail-user.h"
#include "mail-namespace.h"
#include "mailbox-list.h"
#include "mail-transaction-log.h"
#include "mail-index-private.h"
#include "mail-index-view-private.h"
#include "mail-index-transaction-private.h"
#include "mail-storage-private.h"
#include "mail-storage-hooks.h"
#include "notify-plugin.h"

#include "openchange-shim.h"
#include "openchange-versions.h"

#include <sys/stat.h>
#include <time.h>

static const struct openchange_callbacks *rust;
static struct notify_context *notify;

/* -- Users -- */

#define OPENCHANGE_USER_CONTEXT(obj) \
	MODULE_CONTEXT(obj, openchange_user_module)

struct openchange_user {
	union mail_user_module_context module_ctx;
	/* Rust's; never NULL */
	void *rust;
	/* when Rust wants to be called */
	struct timeout *tick;
};

static MODULE_CONTEXT_DEFINE_INIT(openchange_user_module,
				  &mail_user_module_register);

static void later(struct openchange_user *ouser);

static void tick(struct openchange_user *ouser)
{
	timeout_remove(&ouser->tick);
	T_BEGIN {
		rust->tick(ouser->rust);
	} T_END;
	later(ouser);
}

/* Has Rust called when it wants to be, and Dovecot has nothing to do. Processes that never have nothing to do (doveadm)
   tell the rest at the end of the user. */
static void later(struct openchange_user *ouser)
{
	uint32_t wake = rust->wake_ms(ouser->rust);

	if (ouser->tick != NULL)
		timeout_remove(&ouser->tick);
	if (wake != UINT32_MAX)
		ouser->tick = add_timeout(wake, tick, ouser);
}

static void user_deinit(struct mail_user *user)
{
	struct openchange_user *ouser = OPENCHANGE_USER_CONTEXT(user);

	/* closes the user's mailboxes: no transaction is left afterwards */
	ouser->module_ctx.super.deinit(user);
	if (ouser->tick != NULL)
		timeout_remove(&ouser->tick);
	rust->user_free(ouser->rust);
	ouser->rust = NULL;
}

static void user_created(struct mail_user *user)
{
	struct mail_user_vfuncs *v = user->vlast;
	struct openchange_user *ouser;
	void *rust_user;

	/* e.g. the "raw mail user" from whom LDA and LMTP copy the mail, and owners of shared mailboxes */
	if (user->autocreated)
		return;
	T_BEGIN {
		rust_user = user_new(rust, user, user_debug(user));
	} T_END;
	if (rust_user == NULL)
		return;

	ouser = p_new(user->pool, struct openchange_user, 1);
	ouser->rust = rust_user;
	ouser->module_ctx.super = *v;
	user->vlast = &ouser->module_ctx.super;
	v->deinit = user_deinit;
	MODULE_CONTEXT_SET(user, openchange_user_module, ouser);
}

/* -- Mailboxes -- */

/* Whose context a mailbox belongs to; NULL: it is none of ours. */
static struct openchange_user *mailbox_user(struct mailbox *box)
{
	/* a virtual mailbox has copies of what happens elsewhere */
	if (strcmp(box->storage->name, "virtual") == 0)
		return NULL;
	return OPENCHANGE_USER_CONTEXT(box->storage->user);
}

static uint32_t uid_validity(struct mailbox *box)
{
	struct mailbox_status status;

	if (!box->opened)
		return 0;
	mailbox_get_open_status(box, STATUS_UIDVALIDITY, &status);
	return status.uidvalidity;
}

/* Uses the data stack. */
static void describe(struct mailbox *box, struct openchange_mailbox *at)
{
	struct mail_namespace *ns = mailbox_get_namespace(box);

	memset(at, 0, sizeof(*at));
	at->name = mailbox_get_vname(box);
	at->storage_name = mailbox_get_name(box);
	at->special_use = special_use(box);
	at->separator = mail_namespace_get_sep(ns);
	at->list_separator = mailbox_list_get_hierarchy_sep(box->list);
	at->uid_validity = uid_validity(box);
	/* Another prefix for mailboxes of another namespace: they have one name. */
	if (ns->alias_for != NULL) {
		at->name = mailbox_list_get_vname(ns->alias_for->list,
						  at->storage_name);
		at->separator = mail_namespace_get_sep(ns->alias_for);
	}
	/* A shared mailbox is told to its owner, under the name that it has for them. One without owner (public) is
	   told to whoever changes it. */
	if (ns->owner != NULL && ns->owner != box->storage->user) {
		at->owner = ns->owner->username;
		/* by default it is seen as the prefix alone */
		if (strcmp(at->storage_name, "INBOX") == 0)
			at->name = "INBOX";
		else if (strncmp(at->name, ns->prefix, ns->prefix_len) == 0 &&
		    at->name[ns->prefix_len] != '\0')
			at->name += ns->prefix_len;
	}
}

static void mailbox_changed(enum openchange_mailbox_change what,
			    struct mailbox *box, uint32_t validity,
			    struct mailbox *old)
{
	struct openchange_user *ouser = mailbox_user(box);
	struct openchange_mailbox at, old_at;

	if (ouser == NULL)
		return;
	T_BEGIN {
		describe(box, &at);
		if (validity != 0)
			at.uid_validity = validity;
		/* subscriptions are of who subscribes, whosever the mailbox is */
		if (at.owner != NULL && (what == OPENCHANGE_MAILBOX_SUBSCRIBE ||
					 what == OPENCHANGE_MAILBOX_UNSUBSCRIBE)) {
			at.owner = NULL;
			at.name = mailbox_get_vname(box);
		}
		if (old != NULL)
			describe(old, &old_at);
		rust->mailbox(ouser->rust, what, &at,
			      old == NULL ? NULL : &old_at);
	} T_END;
	later(ouser);
}

/* What was just made has its UIDVALIDITY once it was opened, which whoever made it does next. */
static uint32_t new_uid_validity(struct mailbox *box)
{
	struct mailbox *again;
	struct mailbox_status status;
	uint32_t validity = 0;

	again = mailbox_alloc(box->list, mailbox_get_vname(box), 0);
	/* a Maildir gets it when it is synced for the first time */
	if (mailbox_sync(again, 0) == 0 &&
	    mailbox_get_status(again, STATUS_UIDVALIDITY, &status) == 0)
		validity = status.uidvalidity;
	mailbox_free(&again);
	return validity;
}

static void mailbox_created(struct mailbox *box)
{
	uint32_t validity;

	if (mailbox_user(box) == NULL)
		return;
	T_BEGIN {
		validity = new_uid_validity(box);
	} T_END;
	mailbox_changed(OPENCHANGE_MAILBOX_CREATE, box, validity, NULL);
}

static void *mailbox_delete_begin(struct mailbox *box)
{
	uint32_t *validity = i_new(uint32_t, 1);

	*validity = uid_validity(box);
	return validity;
}

static void mailbox_delete_commit(void *context, struct mailbox *box)
{
	uint32_t *validity = context;

	mailbox_changed(OPENCHANGE_MAILBOX_DELETE, box, *validity, NULL);
	i_free(validity);
}

static void mailbox_delete_rollback(void *context)
{
	i_free(context);
}

static void mailbox_renamed(struct mailbox *src, struct mailbox *dest)
{
	mailbox_changed(OPENCHANGE_MAILBOX_RENAME, dest, 0, src);
}

static void mailbox_subscribed(struct mailbox *box, bool subscribed)
{
	mailbox_changed(subscribed ? OPENCHANGE_MAILBOX_SUBSCRIBE :
			OPENCHANGE_MAILBOX_UNSUBSCRIBE, box, 0, NULL);
}

/* -- Transactions -- */

#define OPENCHANGE_TXN_CONTEXT(obj) \
	MODULE_CONTEXT(obj, openchange_storage_module)
#define OPENCHANGE_MAIL_CONTEXT(obj) \
	MODULE_CONTEXT_REQUIRE(obj, openchange_mail_module)

struct openchange_txn {
	union mailbox_transaction_module_context module_ctx;
	struct mailbox_transaction_context *t;
	struct mailbox *box;
	struct openchange_user *user;
	/* Rust's; made by the first change */
	void *rust;
	int (*super_commit)(struct mail_index_transaction *itrans,
			    struct mail_index_transaction_commit_result *result);
	uint64_t waited_us;
	/* where the last copy came from, and its name: what has its address later may be another */
	struct mailbox *source;
	char *source_name;
	/* where the commit stands in the log of the mailbox */
	uint64_t order;
	bool changes_flags;
	bool delivery;
	bool asked_for_uids;
};

static MODULE_CONTEXT_DEFINE_INIT(openchange_storage_module,
				  &mail_storage_module_register);
static MODULE_CONTEXT_DEFINE_INIT(openchange_mail_module,
				  &mail_module_register);

static void tell_logged_keywords(void *rust_txn,
				 const struct mail_transaction_keyword_update *update,
				 uint32_t size)
{
	const char *name;
	const uint32_t *uid, *end;
	size_t offset = sizeof(*update) + update->name_size;

	offset = (offset + 3) & ~(size_t)3;
	if (offset > size)
		return;
	name = t_strndup(update + 1, update->name_size);
	uid = CONST_PTR_OFFSET(update, offset);
	end = CONST_PTR_OFFSET(update, size);
	for (; uid + 2 <= end; uid += 2)
		rust->logged_keyword(rust_txn, uid[0], uid[1], name,
				     update->modify_type == MODIFY_ADD);
}

static void tell_logged_record(void *rust_txn, struct mailbox *box,
			       const struct mail_transaction_header *hdr,
			       const void *data)
{
	const struct mail_transaction_flag_update *flags = data;
	const struct mail_transaction_keyword_reset *resets = data;
	const ARRAY_TYPE(keywords) *all;
	const char *const *names;
	unsigned int i, j, count;

	switch (hdr->type & MAIL_TRANSACTION_TYPE_MASK) {
	case MAIL_TRANSACTION_FLAG_UPDATE:
		for (i = 0; i < hdr->size / sizeof(*flags); i++)
			rust->logged_flags(rust_txn, flags[i].uid1,
					   flags[i].uid2, flags[i].add_flags,
					   flags[i].remove_flags);
		break;
	case MAIL_TRANSACTION_KEYWORD_UPDATE:
		if (hdr->size >= sizeof(struct mail_transaction_keyword_update))
			tell_logged_keywords(rust_txn, data, hdr->size);
		break;
	case MAIL_TRANSACTION_KEYWORD_RESET:
		/* all keywords that there are */
		all = mail_index_get_keywords(box->index);
		names = array_get(all, &count);
		for (i = 0; i < hdr->size / sizeof(*resets); i++) {
			for (j = 0; j < count; j++)
				rust->logged_keyword(rust_txn, resets[i].uid1,
						     resets[i].uid2, names[j],
						     FALSE);
		}
		break;
	default:
		break;
	}
}

/* Tells Rust what a commit has written of flags and keywords. The log is in memory. */
static void tell_logged(void *rust_txn, struct mailbox *box,
			const struct mail_index_transaction_commit_result *at)
{
	struct mail_transaction_log_view *view;
	const struct mail_transaction_header *hdr;
	const void *data;
	const char *reason;
	bool reset;

	view = mail_transaction_log_view_open(box->index->log);
	if (mail_transaction_log_view_set(view, at->log_file_seq,
					  at->log_file_offset - at->commit_size,
					  at->log_file_seq, at->log_file_offset,
					  &reset, &reason) > 0) {
		rust->begin_logged(rust_txn);
		while (mail_transaction_log_view_next(view, &hdr, &data) > 0)
			tell_logged_record(rust_txn, box, hdr, data);
	}
	mail_transaction_log_view_close(&view);
}

static uint64_t
commit_order(const struct mail_index_transaction_commit_result *result)
{
	return (uint64_t)result->log_file_seq << 32 |
		(result->log_file_offset & 0xffffffff);
}

/* Notes where the commit stands in the transaction log of the mailbox. All commits to it go through this one log,
   whatever process does them, under its lock. */
static int index_commit(struct mail_index_transaction *itrans,
			struct mail_index_transaction_commit_result *result)
{
	struct mailbox_transaction_context *t = MAIL_STORAGE_CONTEXT(itrans);
	struct openchange_txn *txn = OPENCHANGE_TXN_CONTEXT(t);
	uint32_t seq = itrans->view->log_file_head_seq;
	uoff_t offset = itrans->view->log_file_head_offset;
	bool stale;
	int ret;

	ret = txn->super_commit(itrans, result);
	if (ret == 0 && result->log_file_seq != 0 &&
	    !MAIL_INDEX_IS_IN_MEMORY(txn->box->index)) {
		txn->order = commit_order(result);
		/* Somebody has written since this session looked. What it saw change is not the truth then. */
		stale = result->log_file_seq != seq ||
			result->log_file_offset - result->commit_size != offset;
		if (stale && txn->changes_flags) T_BEGIN {
			tell_logged(txn->rust, txn->box, result);
		} T_END;
	}
	return ret;
}

static void *transaction_begin(struct mailbox_transaction_context *t)
{
	struct mailbox *box = t->box;
	struct openchange_user *ouser = mailbox_user(box);
	struct openchange_txn *txn;
	bool delivery = (box->flags & MAILBOX_FLAG_POST_SESSION) != 0;

	if (ouser == NULL || !rust->wants_transactions(ouser->rust, delivery))
		return NULL;

	txn = i_new(struct openchange_txn, 1);
	txn->t = t;
	txn->box = box;
	txn->user = ouser;
	txn->delivery = delivery;
	if (t->itrans != NULL && t->super.commit != NULL) {
		txn->super_commit = t->super.commit;
		t->super.commit = index_commit;
	}
	MODULE_CONTEXT_SET(t, openchange_storage_module, txn);
	return txn;
}

/* Rust's part of a transaction, made when it is needed: most only read. */
static void *changes(struct openchange_txn *txn)
{
	struct openchange_mailbox at;

	if (txn->rust == NULL) {
		describe(txn->box, &at);
		txn->rust = rust->begin(txn->user->rust, &at, txn->delivery);
	}
	return txn->rust;
}

static uint64_t monotonic_us(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Whether the list of UIDs of a Maildir is locked. */
static bool uidlist_is_locked(struct mailbox *box)
{
	const char *dir, *path;
	struct stat st;

	if (strcmp(box->storage->name, "maildir") != 0 ||
	    mailbox_get_path_to(box, MAILBOX_LIST_PATH_TYPE_CONTROL, &dir) <= 0)
		return FALSE;
	path = t_strconcat(dir, "/dovecot-uidlist.lock", NULL);
	return lstat(path, &st) == 0;
}

/* Asks for the UIDs of what this transaction saves. A Maildir whose list of UIDs is locked at commit (two
   deliveries at once) would store the mail without telling its UID. But once asked, Dovecot waits for that lock, for
   two minutes if need be, and fails the delivery then: so it is asked only while the lock is free, which is waited
   for within half of the budget. Without it the event has no UID. (IMAP asks by itself.) */
static void want_uids(struct openchange_txn *txn)
{
	const struct timespec nap = { .tv_sec = 0, .tv_nsec = 500000 };
	uint64_t begun, limit;
	bool locked;

	if (txn->asked_for_uids ||
	    (txn->t->flags & MAILBOX_TRANSACTION_FLAG_ASSIGN_UIDS) != 0)
		return;
	txn->asked_for_uids = TRUE;
	begun = monotonic_us();
	limit = rust->budget_us(txn->user->rust) / 2;
	while ((locked = uidlist_is_locked(txn->box)) &&
	       monotonic_us() - begun < limit)
		(void)nanosleep(&nap, NULL);
	txn->waited_us = monotonic_us() - begun;
	if (!locked)
		txn->t->flags |= MAILBOX_TRANSACTION_FLAG_ASSIGN_UIDS;
}

static const char *header(struct mail *mail, const char *name)
{
	const char *value;

	if (mail_get_first_header(mail, name, &value) <= 0)
		return NULL;
	/* Rust cuts it at a character: a few octets more than its limit */
	return t_strndup(value, 520);
}

static void mail_save(void *context, struct mail *mail)
{
	struct openchange_txn *txn = context;
	struct openchange_mail one;
	uoff_t size;

	if (txn == NULL)
		return;
	T_BEGIN {
		want_uids(txn);
		memset(&one, 0, sizeof(one));
		one.from = header(mail, "From");
		one.subject = header(mail, "Subject");
		one.message_id = header(mail, "Message-ID");
		one.flags = mail_get_flags(mail);
		one.keywords = mail_get_keywords(mail);
		one.size = mail_get_physical_size(mail, &size) < 0 ?
			UINT64_MAX : size;
		rust->save(changes(txn), &one);
	} T_END;
}

/* Whether the copy before came from there too: then it need not be described again, for each of 100,000 mails. */
static bool same_source(struct openchange_txn *txn, struct mailbox *box)
{
	const char *name = mailbox_get_vname(box);

	if (txn->source == box && strcmp(txn->source_name, name) == 0)
		return TRUE;
	i_free(txn->source_name);
	txn->source = box;
	txn->source_name = i_strdup(name);
	return FALSE;
}

static void mail_copy(void *context, struct mail *src, struct mail *dst)
{
	struct openchange_txn *txn = context;
	struct openchange_mailbox from;
	struct openchange_mail one;
	bool same;

	if (txn == NULL)
		return;
	if (txn->delivery) {
		/* a new mail too */
		mail_save(context, dst);
		return;
	}
	T_BEGIN {
		want_uids(txn);
		same = same_source(txn, src->box);
		if (!same)
			describe(src->box, &from);
		memset(&one, 0, sizeof(one));
		one.flags = mail_get_flags(dst);
		one.keywords = mail_get_keywords(dst);
		rust->copy(txn->user->rust, changes(txn), same ? NULL : &from,
			   src->uid, &one);
	} T_END;
}

static void mail_expunge_begin(void *context, struct mail *mail)
{
	struct openchange_txn *txn = context;

	if (txn != NULL) T_BEGIN {
		rust->expunge(changes(txn), mail->uid);
	} T_END;
}

static int how_to_modify(enum modify_type how)
{
	switch (how) {
	case MODIFY_ADD:
		return OPENCHANGE_MODIFY_ADD;
	case MODIFY_REMOVE:
		return OPENCHANGE_MODIFY_REMOVE;
	case MODIFY_REPLACE:
		break;
	}
	return OPENCHANGE_MODIFY_REPLACE;
}

/* notify tells of flags what they were and what they are, as this session sees it, and nothing where these are the
   same. That is not enough where another session was first (see index_commit): so we look by ourselves. */
static void mail_update_flags_begin(struct mail *_mail, enum modify_type how,
				    enum mail_flags flags)
{
	struct mail_private *mail = (struct mail_private *)_mail;
	union mail_module_context *omail = OPENCHANGE_MAIL_CONTEXT(mail);
	struct openchange_txn *txn = OPENCHANGE_TXN_CONTEXT(_mail->transaction);
	enum mail_flags old = mail_get_flags(_mail);

	omail->super.update_flags(_mail, how, flags);
	if (txn != NULL) T_BEGIN {
		txn->changes_flags = TRUE;
		rust->flags(changes(txn), _mail->uid, old, how_to_modify(how),
			    flags);
	} T_END;
}

static const char *const *keyword_names(struct mail_keywords *keywords)
{
	const ARRAY_TYPE(keywords) *all =
		mail_index_get_keywords(keywords->index);
	const char **names = t_new(const char *, keywords->count + 1);
	const char *const *name;
	unsigned int i, count;

	name = array_get(all, &count);
	for (i = 0; i < keywords->count; i++)
		names[i] = keywords->idx[i] < count ?
			name[keywords->idx[i]] : "";
	return names;
}

static void mail_update_keywords_begin(struct mail *_mail,
				       enum modify_type how,
				       struct mail_keywords *keywords)
{
	struct mail_private *mail = (struct mail_private *)_mail;
	union mail_module_context *omail = OPENCHANGE_MAIL_CONTEXT(mail);
	struct openchange_txn *txn = OPENCHANGE_TXN_CONTEXT(_mail->transaction);
	const char *const *old = mail_get_keywords(_mail);

	omail->super.update_keywords(_mail, how, keywords);
	if (txn != NULL) T_BEGIN {
		txn->changes_flags = TRUE;
		rust->keywords(changes(txn), _mail->uid, old,
			       how_to_modify(how), keyword_names(keywords));
	} T_END;
}

static void mail_allocated(struct mail *_mail)
{
	struct mail_private *mail = (struct mail_private *)_mail;
	struct mail_vfuncs *v = mail->vlast;
	union mail_module_context *omail;

	/* none of ours, or not to be notified of */
	if (OPENCHANGE_TXN_CONTEXT(_mail->transaction) == NULL)
		return;
	omail = p_new(mail->pool, union mail_module_context, 1);
	omail->super = *v;
	mail->vlast = &omail->super;
	v->update_flags = mail_update_flags_begin;
	v->update_keywords = mail_update_keywords_begin;
	MODULE_CONTEXT_SET_SELF(mail, openchange_mail_module, omail);
}

static void transaction_free(struct openchange_txn *txn)
{
	i_free(txn->source_name);
	i_free(txn);
}

static void transaction_rollback(void *context)
{
	struct openchange_txn *txn = context;

	if (txn == NULL)
		return;
	rust->rollback(txn->rust);
	transaction_free(txn);
}

static void transaction_commit(void *context,
			       struct mail_transaction_commit_changes *changes)
{
	struct openchange_txn *txn = context;

	if (txn == NULL)
		return;
	if (txn->rust != NULL) T_BEGIN {
		struct openchange_commit commit;
		struct openchange_range *saved = NULL;
		const struct seq_range *ranges;
		unsigned int count = 0, i;

		memset(&commit, 0, sizeof(commit));
		if (array_is_created(&changes->saved_uids)) {
			ranges = array_get(&changes->saved_uids, &count);
			saved = t_new(struct openchange_range, count + 1);
			for (i = 0; i < count; i++) {
				saved[i].first = ranges[i].seq1;
				saved[i].last = ranges[i].seq2;
			}
		}
		commit.saved = saved;
		commit.saved_count = count;
		commit.order = txn->order;
		commit.waited_us = txn->waited_us;
		/* a commit that saves nothing does not say it */
		commit.uid_validity = changes->uid_validity != 0 ?
			changes->uid_validity : uid_validity(txn->box);
		rust->commit(txn->user->rust, txn->rust, &commit);
	} T_END;
	if (txn->rust != NULL)
		later(txn->user);
	transaction_free(txn);
}

#include "openchange-found.h"

/* -- Dovecot's log, and the module -- */

void openchange_shim_log(int level, const char *line)
{
	switch (level) {
	case OPENCHANGE_LEVEL_DEBUG:
		i_debug("%s", line);
		break;
	case OPENCHANGE_LEVEL_INFO:
		i_info("%s", line);
		break;
	default:
		i_warning("%s", line);
		break;
	}
}

static const struct notify_vfuncs openchange_vfuncs = {
	.mail_transaction_begin = transaction_begin,
	.mail_save = mail_save,
	.mail_copy = mail_copy,
	.mail_expunge = mail_expunge_begin,
	.mail_transaction_commit = transaction_commit,
	.mail_transaction_rollback = transaction_rollback,
	.mailbox_create = mailbox_created,
	.mailbox_delete_begin = mailbox_delete_begin,
	.mailbox_delete_commit = mailbox_delete_commit,
	.mailbox_delete_rollback = mailbox_delete_rollback,
	.mailbox_rename = mailbox_renamed,
	.mailbox_set_subscribed = mailbox_subscribed,
};

static struct mail_storage_hooks openchange_hooks = {
	.mail_user_created = user_created,
	FOUND_HOOKS
	.mail_allocated = mail_allocated,
};

void openchange_shim_init(struct module *module,
			  const struct openchange_callbacks *callbacks)
{
	rust = callbacks;
	notify = notify_register(&openchange_vfuncs);
	mail_storage_hooks_add(module, &openchange_hooks);
	found_register();
}

void openchange_shim_deinit(void)
{
	found_unregister();
	mail_storage_hooks_remove(&openchange_hooks);
	if (notify != NULL)
		unregister(&notify);
}
