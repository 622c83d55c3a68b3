/* Flags and keywords that an index transaction changes: before it is committed, and as they were written. Included by
   openchange-shim.c alone. */
#ifndef OPENCHANGE_MARKS_H
#define OPENCHANGE_MARKS_H

/* UIDs that follow on each other and change alike. */
struct openchange_run {
	/* last 0: there is none */
	uint32_t first, last;
	uint32_t set, clear;
};

static void end_run(void *rust_txn, struct openchange_run *run)
{
	if (run->last != 0)
		rust->flags(rust_txn, run->first, run->last, run->set,
			    run->clear);
	run->last = 0;
}

/* What a transaction is about to write of flags, where that is a change. It has ranges, of sequences until the commit:
   so Rust hears of ranges too, and of 100,000 mails as quickly as of one. */
static void tell_flags(struct mail_index_transaction *t, void *rust_txn)
{
	const struct mail_index_flag_update *updates;
	const struct mail_index_record *rec;
	struct openchange_run run;
	unsigned int i, count;
	uint32_t seq, set, clear;

	memset(&run, 0, sizeof(run));
	updates = array_get(&t->updates, &count);
	for (i = 0; i < count; i++) {
		for (seq = updates[i].uid1; seq <= updates[i].uid2 &&
		     seq < t->first_new_seq; seq++) {
			rec = mail_index_lookup(t->view, seq);
			set = updates[i].add_flags & ~rec->flags &
				MAIL_FLAGS_NONRECENT;
			clear = updates[i].remove_flags &
				~updates[i].add_flags & rec->flags &
				MAIL_FLAGS_NONRECENT;
			if (set == 0 && clear == 0)
				continue;
			if (run.last == 0 || run.last + 1 != rec->uid ||
			    run.set != set || run.clear != clear) {
				end_run(rust_txn, &run);
				run.first = rec->uid;
				run.set = set;
				run.clear = clear;
			}
			run.last = rec->uid;
		}
	}
	end_run(rust_txn, &run);
}

static bool has_index(const ARRAY_TYPE(keyword_indexes) *indexes,
		      unsigned int wanted)
{
	const unsigned int *index;
	unsigned int i, count;

	index = array_get(indexes, &count);
	for (i = 0; i < count; i++) {
		if (index[i] == wanted)
			return TRUE;
	}
	return FALSE;
}

/* The same of one keyword. Uses the data stack. */
static void tell_keyword(struct mail_index_transaction *t, void *rust_txn,
			 const ARRAY_TYPE(seq_range) *seqs,
			 unsigned int index, bool set)
{
	const char *name =
		*array_idx(mail_index_get_keywords(t->view->index), index);
	const struct seq_range *ranges;
	ARRAY_TYPE(keyword_indexes) old;
	uint32_t seq, uid, first = 0, last = 0;
	unsigned int i, count;

	if (!array_is_created(seqs))
		return;
	t_array_init(&old, 16);
	ranges = array_get(seqs, &count);
	for (i = 0; i < count; i++) {
		for (seq = ranges[i].seq1; seq <= ranges[i].seq2 &&
		     seq < t->first_new_seq; seq++) {
			mail_index_lookup_keywords(t->view, seq, &old);
			if (has_index(&old, index) == set)
				continue;
			mail_index_lookup_uid(t->view, seq, &uid);
			if (last == 0 || last + 1 != uid) {
				if (last != 0)
					rust->keyword(rust_txn, first, last,
						      name, set);
				first = uid;
			}
			last = uid;
		}
	}
	if (last != 0)
		rust->keyword(rust_txn, first, last, name, set);
}

static void tell_keywords(struct mail_index_transaction *t, void *rust_txn)
{
	const struct mail_index_transaction_keyword_update *updates;
	const ARRAY_TYPE(keywords) *all = mail_index_get_keywords(t->view->index);
	unsigned int i, count;

	updates = array_get(&t->keyword_updates, &count);
	for (i = 0; i < count && i < array_count(all); i++) T_BEGIN {
		tell_keyword(t, rust_txn, &updates[i].add_seq, i, TRUE);
		tell_keyword(t, rust_txn, &updates[i].remove_seq, i, FALSE);
	} T_END;
}

static bool changes_flags(const struct mail_index_transaction *t)
{
	return array_is_created(&t->updates) && array_count(&t->updates) > 0;
}

/* Those of mails that it adds included. */
static bool changes_keywords(const struct mail_index_transaction *t)
{
	return array_is_created(&t->keyword_updates) &&
		array_count(&t->keyword_updates) > 0;
}

/* Whether it changes flags or keywords of mails that are there already. */
static bool changes_mails(const struct mail_index_transaction *t)
{
	return t->min_flagupdate_seq != 0 &&
		t->min_flagupdate_seq < t->first_new_seq;
}

/* What a commit wrote, of mails with a lower UID than "end": others were added by it. */
struct openchange_logged {
	void *rust_txn;
	struct mailbox *box;
	uint32_t end;
};

static void tell_logged_keyword(const struct openchange_logged *logged,
				uint32_t first, uint32_t last,
				const char *name, bool set)
{
	if (first < logged->end)
		rust->keyword(logged->rust_txn, first,
			      I_MIN(last, logged->end - 1), name, set);
}

static void tell_logged_keywords(const struct openchange_logged *logged,
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
		tell_logged_keyword(logged, uid[0], uid[1], name,
				    update->modify_type == MODIFY_ADD);
}

static void tell_logged_record(const struct openchange_logged *logged,
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
		for (i = 0; i < hdr->size / sizeof(*flags); i++) {
			if (flags[i].uid1 >= logged->end)
				continue;
			/* it clears first: 255 and some to set is "exactly these" */
			rust->flags(logged->rust_txn, flags[i].uid1,
				    I_MIN(flags[i].uid2, logged->end - 1),
				    flags[i].add_flags & MAIL_FLAGS_NONRECENT,
				    flags[i].remove_flags &
				    ~flags[i].add_flags & MAIL_FLAGS_NONRECENT);
		}
		break;
	case MAIL_TRANSACTION_KEYWORD_UPDATE:
		if (hdr->size >= sizeof(struct mail_transaction_keyword_update))
			tell_logged_keywords(logged, data, hdr->size);
		break;
	case MAIL_TRANSACTION_KEYWORD_RESET:
		/* all keywords that there are */
		all = mail_index_get_keywords(logged->box->index);
		names = array_get(all, &count);
		for (i = 0; i < hdr->size / sizeof(*resets); i++) {
			for (j = 0; j < count; j++)
				tell_logged_keyword(logged, resets[i].uid1,
						    resets[i].uid2, names[j],
						    FALSE);
		}
		break;
	default:
		break;
	}
}

/* Tells Rust what a commit has written of flags and keywords. The log is in memory. */
static void tell_logged(const struct openchange_logged *logged,
			const struct mail_index_transaction_commit_result *at)
{
	struct mail_transaction_log_view *view;
	const struct mail_transaction_header *hdr;
	const void *data;
	const char *reason;
	bool reset;
	int ret = -1;

	/* it is not true, whether what is can be read or not */
	rust->forget_flags(logged->rust_txn);
	view = mail_transaction_log_view_open(logged->box->index->log);
	if (log_view_set(view, at->log_file_seq,
			 at->log_file_offset - at->commit_size,
			 at->log_file_seq, at->log_file_offset,
			 &reset, &reason) > 0) {
		while ((ret = mail_transaction_log_view_next(view, &hdr, &data)) > 0)
			tell_logged_record(logged, hdr, data);
	}
	mail_transaction_log_view_close(&view);
	if (ret < 0)
		tell_found(logged->box, 0, 0);
}

#endif
