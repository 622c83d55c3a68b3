/* What Dovecot finds in a mailbox by itself. Included by openchange-shim.c alone, behind what it uses of it. */
#ifndef OPENCHANGE_FOUND_H
#define OPENCHANGE_FOUND_H

#include "llist.h"

/* A Maildir's or mbox's sync gives UIDs to what it finds without one: what others put there, what a delivery had to
   store while the list of UIDs was locked, and what was seen to be gone while somebody else renamed it (Dovecot logs
   "Expunged message reappeared, giving a new UID"). And it takes the flags that the file's name has, which may be those
   from before a change that another session is just making. notify tells of none of that. Only saves and copies give
   UIDs otherwise, and only sessions change flags, in transactions of their own: what an index transaction of a sync
   adds and changes was found. (2.2 has no hook to look at them: nothing of this is told there.) */

#if OPENCHANGE_SINCE(2, 3)

#define OPENCHANGE_BOX_CONTEXT(obj) \
	MODULE_CONTEXT(obj, openchange_box_module)
#define OPENCHANGE_INDEX_CONTEXT(obj) \
	MODULE_CONTEXT_REQUIRE(obj, openchange_index_module)

struct openchange_box {
	union mailbox_module_context module_ctx;
	struct openchange_box *prev, *next;
	struct mailbox *box;
};

struct openchange_sync {
	union mail_index_transaction_module_context module_ctx;
};

static MODULE_CONTEXT_DEFINE_INIT(openchange_box_module,
				  &mail_storage_module_register);
static MODULE_CONTEXT_DEFINE_INIT(openchange_index_module,
				  &mail_index_module_register);

/* All open mailboxes that are ours: an index does not know its mailbox. */
static struct openchange_box *open_boxes;

static struct mailbox *box_of_index(const struct mail_index *index)
{
	struct openchange_box *obox;

	for (obox = open_boxes; obox != NULL; obox = obox->next) {
		if (obox->box->index == index)
			return obox->box;
	}
	return NULL;
}

static void tell_found(struct mailbox *box, uint32_t count)
{
	struct openchange_user *ouser = mailbox_user(box);
	struct openchange_mailbox at;

	if (ouser == NULL)
		return;
	T_BEGIN {
		describe(box, &at);
		rust->found(ouser->rust, &at, count);
	} T_END;
	later(ouser);
}

/* Names of keywords; ends with NULL. Uses the data stack. */
static const char *const *
names_of(struct mail_index *index, const ARRAY_TYPE(keyword_indexes) *indexes)
{
	const ARRAY_TYPE(keywords) *all = mail_index_get_keywords(index);
	const unsigned int *index_of;
	const char **names;
	unsigned int i, count;

	index_of = array_get(indexes, &count);
	names = t_new(const char *, count + 1);
	for (i = 0; i < count; i++)
		names[i] = *array_idx(all, index_of[i]);
	return names;
}

/* The log would say "clear all others" where nothing else was set: so it is compared with what was there. */
static void found_flags(struct mail_index_transaction *t, void *rust_txn)
{
	const struct mail_index_flag_update *updates;
	unsigned int i, count;
	uint32_t seq, uid;
	uint8_t old;

	updates = array_get(&t->updates, &count);
	for (i = 0; i < count; i++) {
		/* sequences, until the commit */
		for (seq = updates[i].uid1; seq <= updates[i].uid2 &&
		     seq < t->first_new_seq; seq++) {
			mail_index_lookup_uid(t->view, seq, &uid);
			old = mail_index_lookup(t->view, seq)->flags;
			rust->flags(rust_txn, uid, old,
				    OPENCHANGE_MODIFY_REPLACE,
				    (old & ~updates[i].remove_flags) |
				    updates[i].add_flags);
		}
	}
}

static void found_keyword(struct mail_index_transaction *t, void *rust_txn,
			  const ARRAY_TYPE(seq_range) *seqs,
			  enum openchange_modify how, const char *name)
{
	const char *const asked[] = { name, NULL };
	const struct seq_range *ranges;
	ARRAY_TYPE(keyword_indexes) old;
	unsigned int i, count;
	uint32_t seq, uid;

	if (!array_is_created(seqs))
		return;
	ranges = array_get(seqs, &count);
	for (i = 0; i < count; i++) {
		for (seq = ranges[i].seq1; seq <= ranges[i].seq2 &&
		     seq < t->first_new_seq; seq++) T_BEGIN {
			t_array_init(&old, 16);
			mail_index_lookup_uid(t->view, seq, &uid);
			mail_index_lookup_keywords(t->view, seq, &old);
			rust->keywords(rust_txn, uid,
				       names_of(t->view->index, &old), how,
				       asked);
		} T_END;
	}
}

static void found_keywords(struct mail_index_transaction *t, void *rust_txn)
{
	const struct mail_index_transaction_keyword_update *updates;
	const ARRAY_TYPE(keywords) *all = mail_index_get_keywords(t->view->index);
	unsigned int i, count;

	updates = array_get(&t->keyword_updates, &count);
	for (i = 0; i < count && i < array_count(all); i++) {
		const char *name = *array_idx(all, i);

		found_keyword(t, rust_txn, &updates[i].add_seq,
			      OPENCHANGE_MODIFY_ADD, name);
		found_keyword(t, rust_txn, &updates[i].remove_seq,
			      OPENCHANGE_MODIFY_REMOVE, name);
	}
}

/* Flags and keywords that a sync is about to write, as a transaction of Rust's; NULL: none. */
static void *found_changes(struct mail_index_transaction *t,
			   struct mailbox *box, struct openchange_user *ouser)
{
	struct openchange_mailbox at;
	bool flags = array_is_created(&t->updates) &&
		array_count(&t->updates) > 0;
	bool keywords = array_is_created(&t->keyword_updates) &&
		array_count(&t->keyword_updates) > 0;
	void *rust_txn = NULL;

	if ((flags || keywords) &&
	    rust->wants_transactions(ouser->rust, FALSE)) T_BEGIN {
		describe(box, &at);
		rust_txn = rust->begin(ouser->rust, &at, FALSE);
		if (flags)
			found_flags(t, rust_txn);
		if (keywords)
			found_keywords(t, rust_txn);
	} T_END;
	return rust_txn;
}

static int sync_commit(struct mail_index_transaction *t,
		       struct mail_index_transaction_commit_result *result)
{
	struct openchange_sync *sync = OPENCHANGE_INDEX_CONTEXT(t);
	struct mailbox *box = !t->sync_transaction ? NULL :
		box_of_index(t->view->index);
	struct openchange_user *ouser = box == NULL ? NULL : mailbox_user(box);
	struct openchange_commit commit;
	unsigned int count = 0;
	void *rust_txn = NULL;
	int ret;

	/* an index in memory begins empty: its first sync finds all that there is, in each process anew */
	if (ouser != NULL && !MAIL_INDEX_IS_IN_MEMORY(t->view->index)) {
		if (array_is_created(&t->appends))
			count = array_count(&t->appends);
		rust_txn = found_changes(t, box, ouser);
	}
	ret = sync->module_ctx.super.commit(t, result);
	i_free(sync);
	if (ret < 0) {
		rust->rollback(rust_txn);
		return ret;
	}
	if (count > 0)
		tell_found(box, count);
	if (rust_txn != NULL) {
		memset(&commit, 0, sizeof(commit));
		if (result->log_file_seq != 0)
			commit.order = commit_order(result);
		commit.uid_validity = uid_validity(box);
		rust->commit(ouser->rust, rust_txn, &commit);
		later(ouser);
	}
	return ret;
}

static void sync_rollback(struct mail_index_transaction *t)
{
	struct openchange_sync *sync = OPENCHANGE_INDEX_CONTEXT(t);

	sync->module_ctx.super.rollback(t);
	i_free(sync);
}

static void index_transaction_created(struct mail_index_transaction *t)
{
	struct mail_index_transaction_vfuncs *v;
	struct openchange_sync *sync;

	/* Dovecot 2.3 and 2.4 leave it NULL for the first hook, and follow it afterwards */
	if (t->vlast == NULL)
		t->vlast = &t->v;
	v = t->vlast;
	/* whether it is a sync's is known at its commit */
	if (box_of_index(t->view->index) == NULL)
		return;
	sync = i_new(struct openchange_sync, 1);
	sync->module_ctx.super = *v;
	t->vlast = &sync->module_ctx.super;
	v->commit = sync_commit;
	v->rollback = sync_rollback;
	MODULE_CONTEXT_SET(t, openchange_index_module, sync);
}

static void box_close(struct mailbox *box)
{
	struct openchange_box *obox = OPENCHANGE_BOX_CONTEXT(box);

	if (obox->box != NULL) {
		DLLIST_REMOVE(&open_boxes, obox);
		obox->box = NULL;
	}
	obox->module_ctx.super.close(box);
}

static void mailbox_allocated(struct mailbox *box)
{
	struct mailbox_vfuncs *v = box->vlast;
	struct openchange_box *obox;

	if (mailbox_user(box) == NULL)
		return;
	obox = p_new(box->pool, struct openchange_box, 1);
	obox->module_ctx.super = *v;
	box->vlast = &obox->module_ctx.super;
	v->close = box_close;
	MODULE_CONTEXT_SET(box, openchange_box_module, obox);
}

static void mailbox_opened(struct mailbox *box)
{
	struct openchange_box *obox = OPENCHANGE_BOX_CONTEXT(box);

	if (obox != NULL && obox->box == NULL) {
		obox->box = box;
		DLLIST_PREPEND(&open_boxes, obox);
	}
}

static void found_register(void)
{
	mail_index_transaction_hook_register(index_transaction_created);
}

static void found_unregister(void)
{
	mail_index_transaction_hook_unregister(index_transaction_created);
}

#  define FOUND_HOOKS \
	.mailbox_allocated = mailbox_allocated, \
	.mailbox_opened = mailbox_opened,

#else

static void found_register(void)
{
}

static void found_unregister(void)
{
}

#  define FOUND_HOOKS

#endif

#endif
