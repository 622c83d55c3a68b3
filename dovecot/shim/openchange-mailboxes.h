/* Mailboxes: what they are to Rust, and what happens to them as a whole. Included by openchange-shim.c alone. */
#ifndef OPENCHANGE_MAILBOXES_H
#define OPENCHANGE_MAILBOXES_H

/* Whose context a mailbox belongs to; NULL: it is none of ours. */
static struct openchange_user *mailbox_user(struct mailbox *box)
{
	struct openchange_user *ouser;

	/* a virtual mailbox has copies of what happens elsewhere */
	if (strcmp(box->storage->name, "virtual") == 0)
		return NULL;
	ouser = OPENCHANGE_USER_CONTEXT(box->storage->user);
	return ouser == NULL || ouser->elsewhere ? NULL : ouser;
}

static uint32_t uid_validity(struct mailbox *box)
{
	struct mailbox_status status;

	if (!box->opened)
		return 0;
	mailbox_get_open_status(box, STATUS_UIDVALIDITY, &status);
	return status.uidvalidity;
}

/* Whether it is told to somebody else: its owner. */
static bool is_others(struct mailbox *box)
{
	struct mail_namespace *ns = mailbox_get_namespace(box);

	return ns->owner != NULL && ns->owner != box->storage->user;
}

/* A mailbox's name in a list, as sessions see it: dsync has names escaped while it works. Uses the data stack. */
static const char *visible_name(struct mailbox_list *list, const char *name)
{
	struct mail_user *user = list->ns->user;
	struct openchange_user *ouser = OPENCHANGE_USER_CONTEXT(user);

	return user->dsyncing && ouser != NULL && !ouser->escapes_names ?
		plain_vname(list, name) : mailbox_list_get_vname(list, name);
}

/* As this session sees it, whosever it is. Uses the data stack. */
static void describe_here(struct mailbox *box, struct openchange_mailbox *at)
{
	struct mail_namespace *ns = mailbox_get_namespace(box);

	memset(at, 0, sizeof(*at));
	at->storage_name = mailbox_get_name(box);
	at->name = box->storage->user->dsyncing ?
		visible_name(box->list, at->storage_name) : mailbox_get_vname(box);
	at->special_use = special_use(box);
	at->separator = mail_namespace_get_sep(ns);
	at->list_separator = mailbox_list_get_hierarchy_sep(box->list);
	at->uid_validity = uid_validity(box);
	/* Another prefix for mailboxes of another namespace: they have one name. */
	if (ns->alias_for != NULL) {
		at->name = visible_name(ns->alias_for->list, at->storage_name);
		at->separator = mail_namespace_get_sep(ns->alias_for);
	}
}

/* As whom it is told to sees it. Uses the data stack. */
static void describe(struct mailbox *box, struct openchange_mailbox *at)
{
	struct mail_namespace *ns = mailbox_get_namespace(box);

	describe_here(box, at);
	/* A shared mailbox is told to its owner, under the name that it has for them. One without owner (public) is
	   told to whoever changes it. */
	if (is_others(box)) {
		at->owner = ns->owner->username;
		/* by default it is seen as the prefix alone */
		if (strcmp(at->storage_name, "INBOX") == 0)
			at->name = "INBOX";
		else if (strncmp(at->name, ns->prefix, ns->prefix_len) == 0 &&
		    at->name[ns->prefix_len] != '\0')
			at->name += ns->prefix_len;
	}
}

/* Whoever keeps a copy of the mailbox is to look again: so many messages were found (0: it is not known how many). The
   UIDVALIDITY may be younger than the session's view; 0: it is not. */
static void tell_found(struct mailbox *box, uint32_t validity, uint32_t count)
{
	struct openchange_user *ouser = mailbox_user(box);
	struct openchange_mailbox at;

	if (ouser == NULL)
		return;
	T_BEGIN {
		describe(box, &at);
		if (validity != 0)
			at.uid_validity = validity;
		rust->found(ouser->rust, &at, count);
	} T_END;
	later(ouser);
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
					 what == OPENCHANGE_MAILBOX_UNSUBSCRIBE))
			describe_here(box, &at);
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

#endif
