/* What Dovecot finds in a mailbox by itself. Included by openchange-shim.c alone, behind what it uses of it. */
#ifndef OPENCHANGE_FOUND_H
#define OPENCHANGE_FOUND_H

/* A Maildir's or mbox's sync gives UIDs to what it finds without one: what others put there, what a delivery had to
   store while the list of UIDs was locked, and what was seen to be gone while somebody else renamed it (Dovecot logs
   "Expunged message reappeared, giving a new UID"). And it takes the flags that the file's name has, which may be those
   from before a change that another session is just making. notify tells of none of that. Only saves and copies give
   UIDs otherwise, and only sessions change flags, in transactions of their own: what an index transaction of a sync
   adds and changes was found. And an index that is rebuilt from what is on the disk (sdbox; mdbox does it in a sync) is
   emptied first, by whatever transaction: what it holds afterwards was found too. (2.2 has no hook to look at them:
   nothing of this is told there.) */

#define OPENCHANGE_BOX_CONTEXT(obj) \
	MODULE_CONTEXT(obj, openchange_box_module)

struct openchange_box {
	union mailbox_module_context module_ctx;
	struct openchange_box *prev, *next;
	/* NULL: it is not open */
	struct mailbox *box;
	/* what its index transactions do is told by whoever asked for it */
	bool updating;
};

static MODULE_CONTEXT_DEFINE_INIT(openchange_box_module,
				  &mail_storage_module_register);

/* A mailbox gets another UIDVALIDITY, and all of its messages other UIDs (doveadm mailbox update, dsync). notify tells of
   an update, but not of which; most of dsync's concern no message. */
static int box_update(struct mailbox *box, const struct mailbox_update *update)
{
	struct openchange_box *obox = OPENCHANGE_BOX_CONTEXT(box);
	int ret;

	obox->updating = update->uid_validity != 0;
	ret = obox->module_ctx.super.update_box(box, update);
	/* half of it may have been done */
	if (obox->updating)
		tell_found(box, ret < 0 ? 0 : update->uid_validity, 0);
	obox->updating = FALSE;
	return ret;
}

#if OPENCHANGE_SINCE(2, 3)

#define OPENCHANGE_INDEX_CONTEXT(obj) \
	MODULE_CONTEXT_REQUIRE(obj, openchange_index_module)

struct openchange_sync {
	union mail_index_transaction_module_context module_ctx;
};

static MODULE_CONTEXT_DEFINE_INIT(openchange_index_module,
				  &mail_index_module_register);

/* All open mailboxes that are ours: an index does not know its mailbox. */
static struct openchange_box *open_boxes;

static struct openchange_box *box_of_index(const struct mail_index *index)
{
	struct openchange_box *obox;

	for (obox = open_boxes; obox != NULL; obox = obox->next) {
		if (obox->box->index == index)
			return obox;
	}
	return NULL;
}

/* The UIDVALIDITY behind a transaction: the session's view is older. */
static uint32_t next_uid_validity(const struct mail_index_transaction *t)
{
	const size_t at = offsetof(struct mail_index_header, uid_validity);
	uint32_t validity = mail_index_get_header(t->view)->uid_validity;

	if (t->pre_hdr_changed && t->pre_hdr_mask[at] != 0)
		memcpy(&validity, t->pre_hdr_change + at, sizeof(validity));
	if (t->post_hdr_changed && t->post_hdr_mask[at] != 0)
		memcpy(&validity, t->post_hdr_change + at, sizeof(validity));
	return validity;
}

/* Flags and keywords that a sync is about to write, as a transaction of Rust's; NULL: none. */
static void *found_changes(struct mail_index_transaction *t,
			   struct mailbox *box, struct openchange_user *ouser)
{
	struct openchange_mailbox at;
	bool flags = changes_flags(t), keywords = changes_keywords(t);
	void *rust_txn = NULL;

	if (changes_mails(t) && (flags || keywords) &&
	    rust->wants_transactions(ouser->rust, FALSE)) T_BEGIN {
		describe(box, &at);
		rust_txn = rust->begin(ouser->rust, &at, FALSE);
		if (flags)
			tell_flags(t, rust_txn);
		if (keywords)
			tell_keywords(t, rust_txn);
	} T_END;
	return rust_txn;
}

static int sync_commit(struct mail_index_transaction *t,
		       struct mail_index_transaction_commit_result *result)
{
	struct openchange_sync *sync = OPENCHANGE_INDEX_CONTEXT(t);
	bool reset = t->reset;
	struct openchange_box *obox = !t->sync_transaction && !reset ? NULL :
		box_of_index(t->view->index);
	struct mailbox *box = obox == NULL || obox->updating ? NULL : obox->box;
	struct openchange_user *ouser = box == NULL ? NULL : mailbox_user(box);
	uint32_t validity = next_uid_validity(t);
	struct openchange_commit commit;
	unsigned int count = 0;
	void *rust_txn = NULL;
	int ret;

	/* an index in memory begins empty: its first sync finds all that there is, in each process anew */
	if (ouser == NULL || MAIL_INDEX_IS_IN_MEMORY(t->view->index))
		reset = FALSE;
	else {
		if (array_is_created(&t->appends))
			count = array_count(&t->appends);
		/* what it changes is compared with what is there no more */
		if (!reset)
			rust_txn = found_changes(t, box, ouser);
	}
	ret = sync->module_ctx.super.commit(t, result);
	i_free(sync);
	if (ret < 0) {
		rust->rollback(rust_txn);
		return ret;
	}
	if (count > 0 || reset)
		tell_found(box, validity, count);
	if (rust_txn != NULL) {
		memset(&commit, 0, sizeof(commit));
		commit.order = commit_order(box->index, result);
		commit.uid_validity = validity;
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
	/* whether it is a sync's, or empties the index, is known at its commit */
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

	/* sdbox rebuilds an index that it has seen to be wrong */
	obox->module_ctx.super.close(box);
	if (obox->box != NULL) {
		DLLIST_REMOVE(&open_boxes, obox);
		obox->box = NULL;
	}
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
	.mailbox_opened = mailbox_opened,

#else

static void found_register(void)
{
}

static void found_unregister(void)
{
}

#  define FOUND_HOOKS

static void box_close(struct mailbox *box)
{
	struct openchange_box *obox = OPENCHANGE_BOX_CONTEXT(box);

	obox->module_ctx.super.close(box);
}

#endif

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
	v->update_box = box_update;
	MODULE_CONTEXT_SET(box, openchange_box_module, obox);
}

#endif
