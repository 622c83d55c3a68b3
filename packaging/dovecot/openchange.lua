-- openchange.lua: tells `ocbus serve` what happens in mailboxes, for a Dovecot without our plugin.
--
-- For Dovecot 2.3.19 and later, and 2.4, with its own plugins notify, push_notification, mail_lua and
-- push_notification_lua. docs/operations.md ("Stock Dovecot without our plugin") has the configuration,
-- docs/formats.md ("JSON of events") what is sent.
--
-- Settings, in Dovecot 2.3 in the section plugin {}, in 2.4 in lua_settings {}; or, in capitals, in the
-- environment of the mail processes (import_environment):
--
--   openchange_push_url        where to, as http://127.0.0.1:8009/v1/events; without it nothing is told
--   openchange_push_token      sent as "Authorization: Bearer TOKEN"
--   openchange_push_timeout    the most that one transaction waits, in milliseconds, 1 to 60000; default 500
--   openchange_push_pause      how long nothing is sent after the daemon was out of reach, in seconds, 0 to
--                              3600; default 10
--   openchange_push_state      a file that the mail users may write, by which processes tell each other of an
--                              outage; without it every dovecot-lda, and LMTP for every mail, finds out for itself
--   openchange_push_separator  the hierarchy separator of the namespaces, one character; default /
--
-- All events of a transaction go in one POST when it is committed. No error leaves this script, and no
-- transaction waits longer than openchange_push_timeout. What could not be told is counted; the next POST that
-- arrives for the same user in the same process begins with a Resync that has the count.
--
-- What Dovecot does not tell a Lua script, and we therefore cannot tell: that a message was copied, or moved,
-- and from where. A copy arrives as MessageAppend; a move as MessageAppend there and MessageExpunge here.

-- What one POST may hold. The daemon takes 4096 events and 256 KiB.
local MAX_OCTETS = 200000 -- what does not fit becomes one Resync
local MAX_MESSAGES = 500 -- new messages told one by one; likewise
local MAX_UIDS = 100000 -- UIDs in changes of flags and expunges; likewise
local MAX_RANGES = 1000 -- of UIDs in one event; more make another event
local MAX_GROUPS = 500 -- changes of different flags
local MAX_TEXT = 1000 -- octets of a From, Subject or Message-ID
local MAX_NAME = 4000 -- octets of a mailbox or user
local MAX_FLAGS = 100 -- flags or keywords of one event
local MAX_USERS = 1000 -- for whom missed events are counted

-- The arguments of Dovecot 2.4's script_init.
local arguments = {}
-- One HTTP client for each deadline: connections stay open between transactions.
local clients = {}
-- Until when nothing is sent, in os.time()'s seconds.
local down_until = 0
-- What the log has been told, so that an outage is one line and not one for each mail.
local complaints = {}
-- Events that could not be told, by user, and how many users those are.
local missed, missed_users = {}, 0

local function log(level, text)
  -- i_warning, i_info: in 2.3 and 2.4.
  pcall(function() dovecot["i_" .. level]("openchange: " .. text) end)
end

local function complain(about, text)
  if not complaints[about] then
    complaints[about] = true
    log("warning", text)
  end
end

-- JSON ---------------------------------------------------------------------------------------------------------

-- Valid UTF-8 as it is; each other octet as U+FFFD. Headers may hold anything.
local function utf8_only(text)
  local parts, at, length = {}, 1, #text
  while at <= length do
    local _, last = text:find("^[%z\1-\127]+", at)
    if not last then
      local first, second = text:byte(at, at + 1)
      second = second or 0
      local more, low, high = nil, 0x80, 0xBF
      if first >= 0xC2 and first <= 0xDF then
        more = 1
      elseif first >= 0xE0 and first <= 0xEF then
        more = 2
        if first == 0xE0 then low = 0xA0 elseif first == 0xED then high = 0x9F end
      elseif first >= 0xF0 and first <= 0xF4 then
        more = 3
        if first == 0xF0 then low = 0x90 elseif first == 0xF4 then high = 0x8F end
      end
      if more and second >= low and second <= high
        and text:find("^[\128-\191]", at + 1)
        and (more < 2 or text:find("^[\128-\191]", at + 2))
        and (more < 3 or text:find("^[\128-\191]", at + 3)) then
        last = at + more
      end
    end
    if last then
      parts[#parts + 1] = text:sub(at, last)
      at = last + 1
    else
      parts[#parts + 1] = "\239\191\189"
      at = at + 1
    end
  end
  return table.concat(parts)
end

local function escaped(character)
  if character == '"' or character == "\\" then
    return "\\" .. character
  end
  return string.format("\\u%04x", character:byte())
end

local function json_text(text, limit)
  text = tostring(text)
  if #text > limit then
    text = text:sub(1, limit)
    -- Not in the middle of a character.
    text = text:gsub("[\194-\244][\128-\191]*$", function(tail)
      local first = tail:byte()
      local whole = first < 0xE0 and 2 or first < 0xF0 and 3 or 4
      return #tail >= whole and tail or ""
    end)
  end
  if text:find("[\128-\255]") then
    text = utf8_only(text)
  end
  return '"' .. text:gsub('[%c"\\]', escaped) .. '"'
end

-- Dovecot's numbers are floats.
local function json_number(number)
  return string.format("%.0f", number)
end

local function json_texts(texts)
  local parts = {}
  for at = 1, math.min(#texts, MAX_FLAGS) do
    parts[at] = json_text(texts[at], MAX_TEXT)
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

-- A UUIDv7 of the second that it is: a subscriber drops an id that it has seen, so that a request that had to be
-- sent twice is one event.
local function new_ids(count)
  local random
  local file = io.open("/dev/urandom", "rb")
  if file then
    file:setvbuf("no")
    random = file:read(10 * count)
    file:close()
  end
  if not random or #random < 10 * count then
    local octets = {}
    for at = 1, 10 * count do
      octets[at] = string.char(math.random(0, 255))
    end
    random = table.concat(octets)
  end
  local time = string.format("%012x", os.time() * 1000)
  local ids = {}
  for at = 1, count do
    local r = { random:byte(10 * at - 9, 10 * at) }
    ids[at] = string.format("%s-%s-7%x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
      time:sub(1, 8), time:sub(9), r[1] % 16, r[2], 128 + r[3] % 64, r[4],
      r[5], r[6], r[7], r[8], r[9], r[10])
  end
  return ids
end

-- Settings -----------------------------------------------------------------------------------------------------

local function setting(user, name)
  local value = arguments[name]
  -- Dovecot 2.4 has no plugin_getenv.
  if value == nil and user.plugin_getenv then
    value = user:plugin_getenv(name)
  end
  if value == nil or value == "" then
    value = os.getenv(name:upper())
  end
  if value ~= "" then
    return value
  end
end

local function number_setting(user, name, lowest, highest, default)
  local text = setting(user, name)
  local number = tonumber(text)
  if number and number >= lowest and number <= highest then
    return math.floor(number)
  end
  if text then
    complain(name, string.format("%s = %s: expected %d to %d; %d is used", name, text, lowest, highest, default))
  end
  return default
end

-- A transaction ------------------------------------------------------------------------------------------------

-- The two names of a mailbox, as JSON. The name that the storage has, and its separator, are seen on a mailbox
-- below it, which need not exist: nothing is opened.
local function mailbox_json(txn, name, prefix)
  local separator = txn.separator
  local known = txn.mailboxes[name]
  if not known then
    known = {}
    txn.mailboxes[name] = known
    pcall(function()
      local child = txn.user:mailbox(name .. separator .. "x")
      local below = child.name
      pcall(function() child:free() end)
      if #below > 2 and below:sub(-1) == "x" then
        known.storage_name, known.list_separator = below:sub(1, -3), below:sub(-2, -2)
      end
    end)
  end
  local parts = {
    string.format('"%smailbox":%s,"%sseparator":%s', prefix, json_text(name, MAX_NAME), prefix,
      json_text(separator, 4)),
  }
  if known.storage_name then
    parts[2] = string.format('"%sstorage_name":%s,"%slist_separator":%s', prefix,
      json_text(known.storage_name, MAX_NAME), prefix, json_text(known.list_separator, 4))
  end
  return table.concat(parts, ",")
end

-- What every event begins with, but for its id.
local function head(txn, kind, event)
  txn.last_mailbox = event.mailbox
  local text = string.format('"user":%s,"kind":"%s",%s', json_text(txn.username, MAX_NAME), kind,
    mailbox_json(txn, event.mailbox, ""))
  if event.uid_validity and event.uid_validity > 0 then
    text = text .. ',"uidvalidity":' .. json_number(event.uid_validity)
  end
  return text
end

-- Something that there is too much of: counted, and told as a Resync of the mailbox.
local function overflow(txn)
  txn.overflow = txn.overflow + 1
end

local function add(txn, text)
  txn.events[#txn.events + 1] = text
end

-- An event of one message that is told together with the same of other messages.
local function add_uid(txn, kind, event, flags, keywords)
  if txn.uids >= MAX_UIDS then
    return overflow(txn)
  end
  local more = ""
  if flags and #flags > 0 then
    more = ',"flags":' .. json_texts(flags)
  end
  if keywords and #keywords > 0 then
    more = more .. ',"keywords":' .. json_texts(keywords)
  end
  local key = kind .. "\n" .. tostring(event.uid_validity) .. "\n" .. event.mailbox .. "\n" .. more
  local group = txn.groups[key]
  if not group then
    if txn.group_count >= MAX_GROUPS then
      return overflow(txn)
    end
    txn.group_count = txn.group_count + 1
    group = { head = head(txn, kind, event), more = more, uids = {} }
    txn.groups[key] = group
    add(txn, group)
  end
  group.uids[#group.uids + 1] = event.uid
  txn.uids = txn.uids + 1
end

-- Ranges as IMAP writes them, at most MAX_RANGES a text; each with the number of its UIDs. Dovecot's order is that of
-- a hash table.
local function ranges(uids)
  table.sort(uids)
  local texts, parts, at, first = {}, {}, 1, 1
  while at <= #uids do
    local last = at
    while uids[last + 1] and uids[last + 1] <= uids[last] + 1 do
      last = last + 1
    end
    local text = json_number(uids[at])
    if uids[last] > uids[at] then
      text = text .. ":" .. json_number(uids[last])
    end
    parts[#parts + 1] = text
    if #parts == MAX_RANGES or last == #uids then
      texts[#texts + 1] = { table.concat(parts, ","), last - first + 1 }
      parts, first = {}, last + 1
    end
    at = last + 1
  end
  return texts
end

-- The From header as people read it: Dovecot decodes it in two parts.
local function from(event)
  local raw = event.from
  if raw and raw:find("=?", 1, true) and (event.from_display_name or "") ~= "" then
    return event.from_display_name .. " <" .. (event.from_address or "") .. ">"
  end
  return raw
end

-- On one line: headers may be folded.
local function unfolded(text)
  return (text:gsub("%c+[ \t]*", " "))
end

local function without(list, left_out)
  local kept = {}
  for _, item in ipairs(list or {}) do
    if not left_out[item] then
      kept[#kept + 1] = item
    end
  end
  return kept
end

local function add_message(txn, kind, event)
  if txn.messages >= MAX_MESSAGES then
    return overflow(txn)
  end
  txn.messages = txn.messages + 1
  local parts = { head(txn, kind, event) }
  -- 0: Maildir's list of UIDs was locked by somebody else.
  if event.uid and event.uid > 0 then
    parts[#parts + 1] = '"uid":' .. json_number(event.uid)
  end
  local flags = without(event.flags, { ["\\Recent"] = true })
  if #flags > 0 then
    parts[#parts + 1] = '"flags":' .. json_texts(flags)
  end
  if event.keywords and #event.keywords > 0 then
    parts[#parts + 1] = '"keywords":' .. json_texts(event.keywords)
  end
  for _, field in ipairs({
    { "from", from(event) },
    { "subject", event.subject },
    { "message_id", event.message_id },
  }) do
    if field[2] and field[2] ~= "" then
      parts[#parts + 1] = string.format('"%s":%s', field[1], json_text(unfolded(field[2]), MAX_TEXT))
    end
  end
  add(txn, table.concat(parts, ","))
end

-- The events of a transaction in order, each without its id and braces, and how many events Dovecot told.
local function finished(txn)
  local texts, octets, told, left_out = {}, 0, 0, txn.overflow
  local function take(text, count)
    told = told + count
    -- With its id.
    octets = octets + #text + 48
    if octets > MAX_OCTETS then
      left_out = left_out + count
    else
      texts[#texts + 1] = text
    end
  end
  for _, event in ipairs(txn.events) do
    if type(event) == "string" then
      take(event, 1)
    else
      for _, uids in ipairs(ranges(event.uids)) do
        take(event.head .. ',"uids":"' .. uids[1] .. '"' .. event.more, uids[2])
      end
    end
  end
  if left_out > 0 then
    told = told + txn.overflow
    texts[#texts + 1] = string.format('"user":%s,"kind":"Resync",%s,"reason":"overflow","missed":%d',
      json_text(txn.username, MAX_NAME), mailbox_json(txn, txn.last_mailbox, ""), left_out)
  end
  return texts, told
end

-- Sending ------------------------------------------------------------------------------------------------------

-- Connections that are idle for longer are closed.
local IDLE_MS = 1000
-- A request goes out again once, within the deadline, when its connection breaks: a daemon that restarts closes
-- those that are idle. Its events have ids, so that they are not told twice. (Dovecot calls that a retry. It looks at
-- an idle connection before it uses it, but not always: the new loop of a call may stand where the former one stood.)
local ATTEMPTS = 2

local function client(timeout_ms)
  local key = timeout_ms
  if clients[key] then
    return clients[key]
  end
  -- 2.3 passes over names that it does not know, so its names come first; 2.4 refuses them.
  local made, result = pcall(dovecot.http.client, {
    request_absolute_timeout_msecs = timeout_ms,
    request_timeout_msecs = timeout_ms,
    connect_timeout_msecs = timeout_ms,
    max_idle_time_msecs = IDLE_MS,
    max_attempts = ATTEMPTS,
    max_connect_attempts = 1,
    no_auto_redirect = true,
  })
  if not made then
    local timeout = timeout_ms .. " msecs"
    made, result = pcall(dovecot.http.client, {
      request_absolute_timeout = timeout,
      request_timeout = timeout,
      connect_timeout = timeout,
      max_idle_time = IDLE_MS .. " msecs",
      request_max_attempts = tostring(ATTEMPTS),
      max_connect_attempts = "1",
      auto_retry = "yes",
      auto_redirect = "no",
    })
  end
  if not made then
    error(result, 0)
  end
  clients[key] = result
  return result
end

-- Dovecot's own codes, where there was no answer, begin here.
local NO_ANSWER = 9000

local function post(txn, body)
  local request = client(txn.timeout_ms):request({ url = txn.url, method = "POST" })
  request:add_header("Content-Type", "application/json")
  if txn.token then
    request:add_header("Authorization", "Bearer " .. txn.token)
  end
  request:set_payload(body)
  local response = request:submit()
  return response:status(), response:reason()
end

-- Until when nothing is sent: what this process knows, or what another one has written, whichever is later.
local function pause_end(txn)
  if txn.state then
    local file = io.open(txn.state, "r")
    if file then
      local time = tonumber(file:read(20) or "")
      file:close()
      -- Not for longer than the pause, whatever it says.
      if time and time > down_until and time <= os.time() + txn.pause_s then
        return time
      end
    end
  end
  return down_until
end

local function pause(txn)
  down_until = os.time() + txn.pause_s
  if txn.state then
    local file = io.open(txn.state, "w")
    if file then
      file:write(string.format("%.0f\n", down_until))
      file:close()
    else
      complain("state", txn.state .. ": cannot be written")
    end
  end
end

local function not_told(txn, count, why)
  complain("outage", string.format("%s: %d events of %s could not be told: %s", txn.url, count, txn.username, why))
  local user = txn.username
  if not missed[user] then
    if missed_users >= MAX_USERS then
      return
    end
    missed_users = missed_users + 1
  end
  missed[user] = (missed[user] or 0) + count
end

local function send(txn)
  local texts, told = finished(txn)
  if told == 0 then
    return
  end
  if os.time() < pause_end(txn) then
    return not_told(txn, told, "out of reach a moment ago")
  end
  local before = missed[txn.username]
  if before then
    table.insert(texts, 1, string.format('"user":%s,"kind":"Resync","reason":"unreachable","missed":%d',
      json_text(txn.username, MAX_NAME), before))
  end
  local ids = new_ids(#texts)
  for at, text in ipairs(texts) do
    texts[at] = '{"id":"' .. ids[at] .. '",' .. text .. "}"
  end
  local body = '{"v":1,"events":[' .. table.concat(texts, ",") .. "]}"
  local fine, status, reason = pcall(post, txn, body)
  if fine and status >= 200 and status < 300 then
    if before then
      missed[txn.username] = nil
      missed_users = missed_users - 1
    end
    if complaints.outage then
      complaints.outage = nil
      log("info", txn.url .. ": answers again")
    end
    return
  end
  -- Whoever answers does so at once: only silence is waited out.
  if not fine or status >= NO_ANSWER then
    pause(txn)
  end
  not_told(txn, told, fine and string.format("%.0f %s", status, tostring(reason)) or tostring(status))
end

-- What Dovecot calls -------------------------------------------------------------------------------------------

-- No error leaves this script: one would be in the log for each mail.
local function guarded(body, ...)
  local fine, result = pcall(body, ...)
  if fine then
    return result
  end
  complain("error", tostring(result))
end

function script_init(settings)
  if type(settings) == "table" then
    arguments = settings
  end
  math.randomseed(os.time() + (tonumber(tostring({}):match("0x(%x+)") or "0", 16) or 0) % 1000000007)
  return 0
end

function dovecot_lua_notify_begin_txn(user)
  return guarded(function()
    local url = setting(user, "openchange_push_url")
    if not url then
      complain("url", "openchange_push_url is not set: nothing is told")
      return nil
    end
    return {
      user = user,
      username = user.username,
      url = url,
      token = setting(user, "openchange_push_token"),
      timeout_ms = number_setting(user, "openchange_push_timeout", 1, 60000, 500),
      pause_s = number_setting(user, "openchange_push_pause", 0, 3600, 10),
      state = setting(user, "openchange_push_state"),
      separator = setting(user, "openchange_push_separator") or "/",
      events = {},
      groups = {},
      group_count = 0,
      overflow = 0,
      messages = 0,
      uids = 0,
      mailboxes = {},
    }
  end)
end

local function on(name, handle)
  _G["dovecot_lua_notify_event_" .. name] = function(txn, event)
    if txn then
      guarded(handle, txn, event)
    end
  end
end

on("message_new", function(txn, event) add_message(txn, "MessageNew", event) end)
on("message_append", function(txn, event) add_message(txn, "MessageAppend", event) end)
on("message_read", function(txn, event) add_uid(txn, "MessageRead", event) end)
on("message_trash", function(txn, event) add_uid(txn, "MessageTrash", event) end)
on("message_expunge", function(txn, event) add_uid(txn, "MessageExpunge", event) end)

-- \Seen and \Deleted have events of their own when they are set: MessageRead and MessageTrash.
local TOLD_ELSEWHERE = { ["\\Seen"] = true, ["\\Deleted"] = true }

on("flags_set", function(txn, event)
  local flags, keywords = without(event.flags, TOLD_ELSEWHERE), event.keywords or {}
  if #flags > 0 or #keywords > 0 then
    add_uid(txn, "FlagsSet", event, flags, keywords)
  end
end)

-- Dovecot fires it for each change of flags, even where nothing was cleared.
on("flags_clear", function(txn, event)
  local flags, keywords = event.flags or {}, event.keywords or {}
  if #flags > 0 or #keywords > 0 then
    add_uid(txn, "FlagsClear", event, flags, keywords)
  end
end)

on("mailbox_create", function(txn, event) add(txn, head(txn, "MailboxCreate", event)) end)
on("mailbox_delete", function(txn, event) add(txn, head(txn, "MailboxDelete", event)) end)
on("mailbox_subscribe", function(txn, event) add(txn, head(txn, "MailboxSubscribe", event)) end)
on("mailbox_unsubscribe", function(txn, event) add(txn, head(txn, "MailboxUnsubscribe", event)) end)
on("mailbox_rename", function(txn, event)
  add(txn, head(txn, "MailboxRename", event) .. "," .. mailbox_json(txn, event.mailbox_old, "old_"))
end)

function dovecot_lua_notify_end_txn(txn, success)
  if txn and success then
    guarded(send, txn)
  end
  -- Dovecot collects garbage now: the user shall go with the transaction.
  if txn then
    txn.user = nil
  end
end
