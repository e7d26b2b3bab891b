"""What Redis does in one step for channels with history: append and publish, record, read.

    <prefix>broker:history:types               hash: channel type -> "<length> <ms>", written by the daemons
    <prefix>broker:history:{<channel>}:top     string: "<epoch> <offset> <tag> <generation>" of the newest event
    <prefix>broker:history:{<channel>}:events  stream: id "<offset>-<tag>", one field: how it came -> the event

Laws: an event's offset is the one before it plus 1, and the epoch is random and made with the first. Every
append has a random tag of its own, so that offsets which are given out again, after Redis came back with
an older state, are told from those that were given out before. What is published on the channel is a
stamp (`broker.stamp`) and the event, in the order of the offsets. Where Redis takes no writes (it is full,
its disk fails) the event is published all the same, stamped as not kept.
Bounds: `length` events, kept `ms` after the last; the position `ttl`, or as long as the events. Redis before 7
cannot say beforehand that a user may not publish on a channel: there the event is refused, and yet kept.

How an event came: `s`, from a publisher that stamps; `r`, recorded from a plain PUBLISH; `g<generation>`,
recorded, and the first in its channel since the recorder changed.
"""

from __future__ import annotations

from broker.command import Script

# Where a channel stands: epoch, offset and recorder's generation of its newest event, or why that cannot be known.
_OPENED = """
local function opened(top, stream, tag, generation)
    local found = redis.pcall('GET', top)
    if type(found) == 'table' then return nil, nil, nil, found['err'] end
    local epoch, offset, recorded
    if found then epoch, offset, recorded = string.match(found, '^(%d+) (%d+) %d+ (%d+)$') end
    if epoch then return epoch, offset, recorded end
    -- Only where it is needed: DEL is allowed in a full Redis, and after one write so are the others.
    if redis.pcall('EXISTS', stream) == 1 then redis.pcall('DEL', stream) end
    return tag, 0, generation
end
"""

# Publishes one event of a publisher, kept as `length` and `ms` say. Returns how many subscribers Redis had for it,
# its position, and why it is not kept, each empty where there is none. No receivers: nothing was done, as this user
# has not the right; PUBLISH alone may still be allowed.
_STAMPED = (
    _OPENED
    + """
local function stamped(top, stream, channel, event, tag, ttl, length, ms)
    if not length or length == '0' then
        local receivers = redis.pcall('PUBLISH', channel, event)
        if type(receivers) == 'table' then return nil, '', receivers['err'] end
        return receivers, '', ''
    end
    -- First of all: what may not be published may not be read in the history either.
    if redis.acl_check_cmd and not redis.acl_check_cmd('PUBLISH', channel, '') then
        return nil, '', 'NOPERM No permissions to access a channel'
    end
    local epoch, offset, recorded, why = opened(top, stream, tag, '0')
    if epoch then
        offset = string.format('%d', offset + 1)
        local added = redis.pcall('XADD', stream, 'MAXLEN', length, offset .. '-' .. tag, 's', event)
        if type(added) ~= 'table' then
            -- A channel whose first event is stamped owes nothing to the recorder.
            if offset == '1' then recorded = '0' end
            local position = epoch .. ':' .. offset .. ':' .. tag
            -- Arguments stay texts: Redis takes a microsecond to write a number as one.
            if tonumber(ms) > tonumber(ttl) then ttl = ms end
            redis.call('SET', top, epoch .. ' ' .. offset .. ' ' .. tag .. ' ' .. recorded, 'PX', ttl)
            redis.call('PEXPIRE', stream, ms)
            return redis.call('PUBLISH', channel, '\\1s:' .. position .. ' ' .. event), position, ''
        end
        why = added['err']
    end
    if string.find(why, 'ACL failure', 1, true) or string.find(why, 'NOPERM', 1, true) then return nil, '', why end
    return redis.call('PUBLISH', channel, '\\1u ' .. event), '', why
end
"""
)

# KEYS: types, top, events, and, with an idempotency key, the memory of it.
# ARGV: channel with the prefix, its type, "<length> <ms>" where Redis has none for the type, the event, a random
# tag, ms that the position is kept, ms to remember the idempotency key.
# Returns how many received it; where it is not kept and ought to be, that and why. The same for a repeated key.
PUBLISH = Script(
    _STAMPED
    + """
local memory = KEYS[4]
if memory then
    local seen = redis.call('HMGET', memory, 'receivers', 'why')
    if seen[1] then return {tonumber(seen[1]), seen[2]} end
    -- Before the event: where Redis takes no writes, nothing is published that a second try would publish again.
    redis.call('HSET', memory, 'receivers', 0, 'why', '')
    redis.call('PEXPIRE', memory, ARGV[7])
end
local length, ms = string.match(redis.call('HGET', KEYS[1], ARGV[2]) or ARGV[3], '^(%d+) (%d+)$')
local receivers, _, why = stamped(KEYS[2], KEYS[3], ARGV[1], ARGV[4], ARGV[5], ARGV[6], length, ms)
if memory then
    if receivers then
        redis.call('HSET', memory, 'receivers', receivers, 'why', why)
    else
        redis.call('DEL', memory)
    end
end
if not receivers then return {err = why} end
if why == '' then return receivers end
return {receivers, why}
"""
)

# KEYS: types, then top and events of each item, and, with an idempotency key, the memory of it.
# ARGV: a random tag, ms that positions are kept, digest of the request, ms to remember it,
# then for each item channel with the prefix, its type, "<length> <ms>" where Redis has none for the type, event.
# Returns whether it was published before (-1: something else was), how many Redis took, why not all; and, unless it
# was before, for each item how many received it or why it was not taken, how many of them ought to be kept and
# are not, and why.
PUBLISH_ALL = Script(
    _STAMPED
    + """
local memory = #KEYS % 2 == 0 and KEYS[#KEYS]
if memory then
    local seen = redis.call('HMGET', memory, 'digest', 'taken', 'why')
    if seen[1] == ARGV[3] then return {1, tonumber(seen[2]), seen[3] or ''} end
    if seen[1] then return {-1, 0, ''} end
    redis.call('HSET', memory, 'digest', ARGV[3], 'taken', 0, 'why', '')
    redis.call('PEXPIRE', memory, ARGV[4])
end
local taken, refused, unkept, unkept_why = 0, '', 0, ''
local answers, bounds = {}, {}
for item = 1, (#ARGV - 4) / 4 do
    local at = item * 4
    local kind = ARGV[at + 2]
    local found = bounds[kind]
    if not found then
        found = {string.match(redis.call('HGET', KEYS[1], kind) or ARGV[at + 3], '^(%d+) (%d+)$')}
        bounds[kind] = found
    end
    local top, stream = KEYS[item * 2], KEYS[item * 2 + 1]
    local receivers, _, why =
        stamped(top, stream, ARGV[at + 1], ARGV[at + 4], ARGV[1], ARGV[2], found[1], found[2])
    answers[item] = receivers or why
    if not receivers then
        refused = why
    else
        taken = taken + 1
        if why ~= '' then unkept, unkept_why = unkept + 1, why end
    end
end
if memory then
    if taken > 0 then
        redis.call('HSET', memory, 'taken', taken, 'why', refused)
    else
        redis.call('DEL', memory)
    end
end
return {0, taken, refused, answers, unkept, unkept_why}
"""
)

# Publishes `events` of plain PUBLISHes, all of which are kept before the first is published. Returns how many
# subscribers Redis had for the last, its position, and why it is not kept, each empty where there is none.
_RECORDED = (
    _OPENED
    + """
local function recorded(top, stream, channel, events, tag, ttl, length, ms, generation)
    local epoch, offset, before, why = opened(top, stream, tag, generation)
    local came, kept, heads, position = 'r', 0, {}, ''
    -- Where nothing of this channel was ever recorded it cannot be known what was missed, nor that anything was.
    if epoch and before ~= generation and (before ~= '0' or tonumber(offset) == 0) then came = 'g' .. generation end
    while epoch and not why and kept < #events do
        local at = string.format('%d', offset + 1)
        local added = redis.pcall('XADD', stream, 'MAXLEN', length, at .. '-' .. tag, came, events[kept + 1])
        if type(added) == 'table' then
            why = added['err']
        else
            offset, kept = at, kept + 1
            position = epoch .. ':' .. at .. ':' .. tag
            heads[kept] = '\\1' .. came .. ':' .. position .. ' '
            came = 'r'
        end
    end
    if kept > 0 then
        redis.call('SET', top, epoch .. ' ' .. offset .. ' ' .. tag .. ' ' .. generation, 'PX', math.max(ttl, ms))
        redis.call('PEXPIRE', stream, ms)
    end
    local receivers = 0
    for index, event in ipairs(events) do
        receivers = redis.call('PUBLISH', channel, (heads[index] or '\\1u ') .. event)
    end
    return {receivers, why and '' or position, why or ''}
end
"""
)

# Records what came by plain PUBLISH on one channel, while the lease is ours.
# KEYS: lease, top, events. ARGV: the lease as BEGIN wrote it, channel with the prefix, a random tag, ms that
# the position is kept, length, ms, generation, then the events.
# Returns -1 where the lease is not ours (any more), else receivers, position, and why they are not kept.
RECORD = Script(
    _RECORDED
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local events = {}
for index = 8, #ARGV do events[index - 7] = ARGV[index] end
return recorded(KEYS[2], KEYS[3], ARGV[2], events, ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
"""
)

# The lease of the recorder: a string "<who>:<generation>", without the generation until it has begun. One process
# has it at a time; it goes by itself when nobody renews it. KEYS: lease.

# Takes it where nobody else has it. ARGV: who, ms. Returns whether it is ours, and ms until it goes by itself.
TAKE = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and string.match(holder, '^[^:]*') ~= ARGV[1] then return {0, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1] .. ':', 'PX', ARGV[2])
return {1, tonumber(ARGV[2])}
""")

# Begins a new generation, where the lease is still as TAKE wrote it: had it been away in between, another
# could have recorded what we have yet to record. KEYS: lease, generation. ARGV: who, ms.
# Returns the generation, or 0.
BEGIN = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ':' then return 0 end
-- From the time, so that a Redis which lost it, or came back with an older one, gives none out twice.
local generation = math.max((tonumber(redis.call('GET', KEYS[2])) or 0) + 1, tonumber(redis.call('TIME')[1]))
redis.call('SET', KEYS[2], string.format('%d', generation))
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. string.format('%d', generation), 'PX', ARGV[2])
return generation
""")

# Renews it. One that has gone by itself is not taken again: another may have had it since. ARGV: who, ms.
# Returns whether it is ours. PEXPIRE needs no memory: a full Redis takes it.
RENEW = Script("""
local holder = redis.call('GET', KEYS[1])
if not holder or string.match(holder, '^[^:]*') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

# Gives it up. ARGV: who.
RELEASE = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and string.match(holder, '^[^:]*') == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")

# Passes it on as it stands: another goes on under the same generation. One message tells it so, in the same step.
# ARGV: who, ms, generation, who is next, channel, message. Returns whether it was ours.
PASS = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ':' .. ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[4] .. ':' .. ARGV[3], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1
""")

# A page of a channel's history. KEYS: top, events, generation.
# ARGV: epoch and offset to read from (the event there comes first, where it is still kept), or an empty epoch
# and how many of the newest (again with the event before them); most events; most bytes (one event comes, whatever
# its size); a random tag, and ms, for a channel that has no position yet: it gets one, so that who comes now can
# come back to here.
# Returns top, generation, and the entries as XRANGE has them.
READ = Script("""
local top = redis.call('GET', KEYS[1])
if not top or not string.match(top, '^%d+ %d+ %d+ %d+$') then
    -- What the recorder misses from now on is missed by who comes back to here.
    top = ARGV[5] .. ' 0 0 ' .. (redis.call('GET', KEYS[3]) or '0')
    local kept = redis.pcall('SET', KEYS[1], top, 'PX', ARGV[6])
    -- Redis takes no writes: then all who ask now are at the same place.
    if kept['err'] then top = '1 0 0 0' else redis.pcall('DEL', KEYS[2]) end
end
local epoch, offset = string.match(top, '^(%d+) (%d+) ')
local from = '-'
if ARGV[1] == epoch then
    from = ARGV[2] .. '-0'
elseif ARGV[1] == '' then
    from = string.format('%d', math.max(offset - ARGV[2], 0)) .. '-0'
end
-- The event at the position itself shows by its tag whether the position is one of this history's: it is no burden.
local here = from ~= '-' and string.sub(from, 1, -2) or 'none'
local entries, size = {}, 0
local most, most_bytes, step = tonumber(ARGV[3]), tonumber(ARGV[4]), 8
while #entries < most and size < most_bytes do
    local found = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', math.min(step, most - #entries))
    for _, entry in ipairs(found) do
        if size < most_bytes then
            entries[#entries + 1] = entry
            if string.sub(entry[1], 1, #here) ~= here then size = size + #entry[2][2] end
        end
    end
    if #found < step then break end
    from = '(' .. found[#found][1]
    step = step * 2
end
return {top, redis.call('GET', KEYS[3]) or '0', entries}
""")
