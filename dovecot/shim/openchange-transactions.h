/* Transactions of sessions: what is saved, copied, expunged and changed in a mailbox, and the commit. Included by
   openchange-shim.c alone, behind what it uses of it. */
#ifndef OPENCHANGE_TRANSACTIONS_H
#define OPENCHANGE_TRANSACTIONS_H

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
	/* whom this is told to does not know it */
	bool source_unknown;
	/* how long it took to tell of what came from such ones: their headers may have to be read from the disk */
	uint64_t described_us;
	/* copies that Rust has not been told of; their set is the flags of copies */
	struct openchange_run copied;
	/* Rust is told at the commit; made by the first one */
	ARRAY_TYPE(seq_range) expunged;
	/* what Rust is told; 0: unknown */
	uint64_t order;
	/* where the commit stands in the log of the mailbox: the file's number (0: unknown), its end, and its beginning in
	   the same file */
	uint32_t log_seq;
	uoff_t ends, begins;
	/* flags were asked to be changed, whether they were so already or not */
	bool changes_flags;
	/* they were told mail by mail */
	bool told_by_mail;
	bool delivery;
	bool asked_for_uids;
};

static MODULE_CONTEXT_DEFINE_INIT(openchange_storage_module,
				  &mail_storage_module_register);
static MODULE_CONTEXT_DEFINE_INIT(openchange_mail_module,
				  &mail_module_register);

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

/* What it is about to write of flags and keywords, as this session sees it. */
static void before_commit(struct openchange_txn *txn,
			  struct mail_index_transaction *itrans)
{
	if (!changes_mails(itrans))
		return;
	txn->changes_flags = TRUE;
	if (changes_flags(itrans) && !txn->told_by_mail)
		tell_flags(itrans, changes(txn));
	if (changes_keywords(itrans))
		tell_keywords(itrans, changes(txn));
}

/* The number of a log file grows by one with each, and begins anew with the index (whose files are removed to repair it).
   "indexid" is the second in which that was made. With a log file for each few minutes at most, the sum grows in both
   cases. 0: unknown. */
static uint64_t
commit_order(const struct mail_index *index,
	     const struct mail_index_transaction_commit_result *result)
{
	if (index->indexid == 0 || result->log_file_seq == 0)
		return 0;
	return ((uint64_t)index->indexid + result->log_file_seq) << 32 |
		(result->log_file_offset & 0xffffffff);
}

/* Does not tell again of messages that another session asked to be expunged, between there in the log and this commit: it
   has told of them. (What is not in the index behind the commit may be gone because of it.) */
static void leave_out_asked(struct openchange_txn *txn, uint32_t seq,
			    uoff_t offset)
{
	struct mail_transaction_log_view *view;
	const struct mail_transaction_header *hdr;
	const struct mail_transaction_expunge *ranges;
	const struct mail_transaction_expunge_guid *mails;
	const void *data;
	const char *reason;
	bool reset;
	uint32_t i;

	view = mail_transaction_log_view_open(txn->box->index->log);
	if (log_view_set(view, seq, offset, txn->log_seq, txn->begins, &reset,
			 &reason) <= 0) {
		/* rather twice than not at all */
		mail_transaction_log_view_close(&view);
		return;
	}
	while (mail_transaction_log_view_next(view, &hdr, &data) > 0) {
		/* external is what was carried out, or seen to be gone */
		switch (hdr->type & (MAIL_TRANSACTION_TYPE_MASK |
				     MAIL_TRANSACTION_EXTERNAL)) {
		case MAIL_TRANSACTION_EXPUNGE:
			ranges = data;
			for (i = 0; i < hdr->size / sizeof(*ranges); i++)
				seq_range_array_remove_range(&txn->expunged,
							     ranges[i].uid1,
							     ranges[i].uid2);
			break;
		case MAIL_TRANSACTION_EXPUNGE_GUID:
			mails = data;
			for (i = 0; i < hdr->size / sizeof(*mails); i++)
				seq_range_array_remove(&txn->expunged,
						       mails[i].uid);
			break;
		default:
			break;
		}
	}
	mail_transaction_log_view_close(&view);
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
	/* up to where the session has seen what is expunged: it may not want to during a command */
	uint32_t expunge_seq = itrans->view->log_file_expunge_seq;
	uoff_t expunge_offset = itrans->view->log_file_expunge_offset;
	/* whether what somebody else changed is not to be written */
	bool conditional = itrans->max_modseq != 0;
	struct openchange_logged logged = {
		.box = txn->box,
		.end = mail_index_get_header(itrans->view)->next_uid,
	};
	bool stale;
	int ret;

	T_BEGIN {
		before_commit(txn, itrans);
	} T_END;
	ret = txn->super_commit(itrans, result);
	if (ret == 0 && result->log_file_seq != 0 &&
	    !MAIL_INDEX_IS_IN_MEMORY(txn->box->index)) {
		txn->order = commit_order(txn->box->index, result);
		txn->log_seq = result->log_file_seq;
		txn->ends = result->log_file_offset;
		txn->begins = txn->ends - result->commit_size;
		/* Somebody has written since this session looked. What it saw change is not the truth then. */
		stale = result->log_file_seq != seq || txn->begins != offset;
		if ((stale || conditional) && txn->changes_flags &&
		    !txn->told_by_mail) T_BEGIN {
			logged.rust_txn = changes(txn);
			tell_logged(&logged, result);
		} T_END;
		if (array_is_created(&txn->expunged) &&
		    (txn->log_seq != expunge_seq ||
		     txn->begins != expunge_offset)) T_BEGIN {
			leave_out_asked(txn, expunge_seq, expunge_offset);
		} T_END;
	}
	return ret;
}

/* Whether what is saved is new mail. Sieve's way to store is that of deliveries wherever it runs, in IMAP (imapsieve) and
   tools too; there it was the user who did it. */
static bool is_delivery(const struct mailbox *box)
{
	const char *service = box->storage->user->service;

	return (box->flags & MAILBOX_FLAG_POST_SESSION) != 0 &&
		service != NULL && (strcmp(service, "lda") == 0 ||
				    strcmp(service, "lmtp") == 0);
}

static void *transaction_begin(struct mailbox_transaction_context *t)
{
	struct mailbox *box = t->box;
	struct openchange_user *ouser = mailbox_user(box);
	struct openchange_txn *txn;
	bool delivery = is_delivery(box);

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

/* Tells Rust of the copies that wait. */
static void tell_copied(struct openchange_txn *txn)
{
	struct openchange_mail mail;

	if (txn->copied.last != 0) {
		memset(&mail, 0, sizeof(mail));
		mail.flags = txn->copied.set;
		rust->copy(txn->user->rust, txn->rust, NULL, txn->copied.first,
			   txn->copied.last, &mail);
	}
	txn->copied.last = 0;
}

static void tell_expunged(struct openchange_txn *txn)
{
	const struct seq_range *ranges;
	unsigned int i, count;

	if (!array_is_created(&txn->expunged))
		return;
	ranges = array_get(&txn->expunged, &count);
	for (i = 0; i < count; i++)
		rust->expunge(txn->rust, ranges[i].seq1, ranges[i].seq2);
}

/* "headers": the mail from which its headers are read; NULL: none are told. */
static void tell_saved(struct openchange_txn *txn, struct mail *mail,
		       struct mail *headers)
{
	struct openchange_mail one;
	uoff_t size;

	T_BEGIN {
		want_uids(txn);
		tell_copied(txn);
		memset(&one, 0, sizeof(one));
		if (headers != NULL) {
			one.from = header(headers, "From");
			one.subject = header(headers, "Subject");
			one.message_id = header(headers, "Message-ID");
		}
		one.flags = mail_get_flags(mail);
		one.keywords = mail_get_keywords(mail);
		one.size = headers == NULL ||
			mail_get_physical_size(headers, &size) < 0 ?
			UINT64_MAX : size;
		rust->save(changes(txn), &one);
	} T_END;
}

static void mail_save(void *context, struct mail *mail)
{
	if (context != NULL)
		tell_saved(context, mail, mail);
}

/* Tells of a copy as of a mail that is saved; of a few, or of 100,000. Headers and size are told for half of the budget; of
   the others there is the UID. */
static void tell_copied_as_saved(struct openchange_txn *txn, struct mail *src,
				 struct mail *dst)
{
	uint64_t begun = monotonic_us();
	bool describe = txn->described_us <
		rust->budget_us(txn->user->rust) / 2;

	tell_saved(txn, dst, describe ? src : NULL);
	txn->described_us += monotonic_us() - begun;
}

/* Whether whom copies to "dest" are told to may not know the mailbox "src", or know it under a name that is not known here:
   it is another user's (doveadm copy ... user), or they are the owner of "dest" and not of "src". */
static bool is_unknown(struct mailbox *src, struct mailbox *dest)
{
	if (src->storage->user != dest->storage->user)
		return TRUE;
	if (!is_others(dest))
		return FALSE;
	return !is_others(src) ||
		strcmp(mailbox_get_namespace(src)->owner->username,
		       mailbox_get_namespace(dest)->owner->username) != 0;
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
	txn->source_unknown = is_unknown(box, txn->box);
	return FALSE;
}

static void mail_copy(void *context, struct mail *src, struct mail *dst)
{
	struct openchange_txn *txn = context;
	struct openchange_mailbox from;
	struct openchange_mail one;
	bool same, has_keywords;

	if (txn == NULL)
		return;
	if (txn->delivery) {
		/* a new mail too */
		tell_saved(txn, dst, dst);
		return;
	}
	same = same_source(txn, src->box);
	if (txn->source_unknown) {
		/* a UID there would be another message's here */
		tell_copied_as_saved(txn, src, dst);
		return;
	}
	memset(&one, 0, sizeof(one));
	one.flags = mail_get_flags(dst) & MAIL_FLAGS_NONRECENT;
	/* which would be set by this transaction */
	has_keywords = txn->t->itrans == NULL ||
		changes_keywords(txn->t->itrans);
	/* the usual case, 100,000 times: it follows on the one before */
	if (same && !has_keywords && txn->copied.last != 0 &&
	    txn->copied.last + 1 == src->uid && txn->copied.set == one.flags) {
		txn->copied.last++;
		return;
	}
	T_BEGIN {
		want_uids(txn);
		(void)changes(txn);
		tell_copied(txn);
		if (!same || has_keywords) {
			if (!same && is_others(txn->box))
				describe(src->box, &from);
			else if (!same)
				describe_here(src->box, &from);
			if (has_keywords)
				one.keywords = mail_get_keywords(dst);
			rust->copy(txn->user->rust, txn->rust,
				   same ? NULL : &from, src->uid, src->uid,
				   &one);
		} else {
			txn->copied.first = txn->copied.last = src->uid;
			txn->copied.set = one.flags;
		}
	} T_END;
}

static void mail_expunge_begin(void *context, struct mail *mail)
{
	struct openchange_txn *txn = context;

	/* without UID: nobody has heard of it yet */
	if (txn == NULL || mail->uid == 0)
		return;
	if (!array_is_created(&txn->expunged)) {
		T_BEGIN {
			(void)changes(txn);
		} T_END;
		i_array_init(&txn->expunged, 16);
	}
	seq_range_array_add(&txn->expunged, mail->uid);
}

/* Flags are read from the index transaction at its commit, all at once (see before_commit): a look at each mail would be
   a tenth of a STORE. This is for the mails of which it does not say them. */
static void mail_update_flags_begin(struct mail *_mail, enum modify_type how,
				    enum mail_flags flags)
{
	struct mail_private *mail = (struct mail_private *)_mail;
	union mail_module_context *omail = OPENCHANGE_MAIL_CONTEXT(mail);
	struct openchange_txn *txn = OPENCHANGE_TXN_CONTEXT(_mail->transaction);
	enum mail_flags old = mail_get_flags(_mail), new = flags;

	omail->super.update_flags(_mail, how, flags);
	if (txn == NULL)
		return;
	if (how == MODIFY_ADD)
		new = old | flags;
	else if (how == MODIFY_REMOVE)
		new = old & ~flags;
	T_BEGIN {
		if (_mail->uid != 0)
			txn->changes_flags = txn->told_by_mail = TRUE;
		rust->flags(changes(txn), _mail->uid, _mail->uid,
			    new & ~old & MAIL_FLAGS_NONRECENT,
			    old & ~new & MAIL_FLAGS_NONRECENT);
	} T_END;
}

/* Whether its index transaction does not say what becomes of a mail's flags. */
static bool wants_flags_by_mail(const struct openchange_txn *txn)
{
	/* a mail that is saved */
	if (txn->t->save_ctx != NULL || txn->super_commit == NULL)
		return TRUE;
	/* each of its users has flags of their own, which do not concern another owner */
	return mailbox_get_private_flags_mask(txn->box) != 0 &&
		!is_others(txn->box);
}

static void mail_allocated(struct mail *_mail)
{
	struct mail_private *mail = (struct mail_private *)_mail;
	struct openchange_txn *txn = OPENCHANGE_TXN_CONTEXT(_mail->transaction);
	struct mail_vfuncs *v = mail->vlast;
	union mail_module_context *omail;

	/* none of ours, or not to be notified of */
	if (txn == NULL || !wants_flags_by_mail(txn))
		return;
	omail = p_new(mail->pool, union mail_module_context, 1);
	omail->super = *v;
	mail->vlast = &omail->super;
	v->update_flags = mail_update_flags_begin;
	MODULE_CONTEXT_SET_SELF(mail, openchange_mail_module, omail);
}

static void transaction_free(struct openchange_txn *txn)
{
	if (array_is_created(&txn->expunged))
		array_free(&txn->expunged);
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

/* Whether the index in memory is that of right behind this commit. */
static bool index_is_at(const struct openchange_txn *txn, bool saved,
			const struct mail_index_header *hdr)
{
	if (hdr->log_file_seq != txn->log_seq)
		return FALSE;
	/* It holds the lock of the log until it has carried out what others asked for, and read the index again. */
	if (saved)
		return hdr->log_file_head_offset >= txn->ends;
	/* Others may follow at any time; and what they have asked to be expunged before is not to be there any more. */
	return hdr->log_file_head_offset == txn->ends &&
		hdr->log_file_tail_offset >= txn->begins;
}

/* How many messages there are, where that costs nothing and is right. Of dbox the index is the mailbox; a Maildir or mbox
   may have what it does not know yet. (What this commit expunges is still there: Rust tells nothing then.) */
static void count_messages(const struct openchange_txn *txn, bool saved,
			   struct openchange_commit *commit)
{
	struct mailbox *box = txn->box;
	const struct mail_index_header *hdr;

	if ((strcmp(box->storage->name, "mdbox") != 0 &&
	     strcmp(box->storage->name, "sdbox") != 0) ||
	    txn->log_seq == 0 || !box->opened || box->index->map == NULL ||
	    mailbox_get_private_flags_mask(box) != 0)
		return;
	hdr = &box->index->map->hdr;
	if (!index_is_at(txn, saved, hdr) ||
	    hdr->seen_messages_count > hdr->messages_count)
		return;
	commit->counted = TRUE;
	commit->messages = hdr->messages_count;
	commit->unseen = hdr->messages_count - hdr->seen_messages_count;
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

		tell_copied(txn);
		tell_expunged(txn);
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
		count_messages(txn, count > 0, &commit);
		/* a commit that saves nothing does not say it */
		commit.uid_validity = changes->uid_validity != 0 ?
			changes->uid_validity : uid_validity(txn->box);
		rust->commit(txn->user->rust, txn->rust, &commit);
	} T_END;
	if (txn->rust != NULL)
		later(txn->user);
	transaction_free(txn);
}

#endif
