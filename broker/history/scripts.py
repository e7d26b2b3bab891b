"""What Redis does in one step for channels with history: append and publish, record, read.

    <prefix>broker:history:types               hash: channel type -> "<length> <ms>", written by the daemons
    <prefix>broker:history:{<channel>}:top     string: "<epoch> <offset> <tag> <generation>" of the newest event
    <prefix>broker:history:{<channel>}:events  stream: id "<offset>-<tag>", one field: how it came -> the event

Laws: an event's offset is the one before it plus 1, and the epoch is random and made with the first. Every
append has a random tag of its own, so that offsets which are given out again, after Redis came back with
an older state, are told from those that were given out before. What is published on the channel is a
stamp (`broker.stamp`) and the event, in the order of the offsets. Where Redis takes no writes (it is full,
its disk fails) the event is published all the same, stamped as not kept.
Bounds: `length` events, kept `ms` after the last; the position `ttl` longer.

How an event came: `s`, from a publisher that stamps; `r`, recorded from a plain PUBLISH; `g<generation>`,
recorded, and the first in its channel since the recorder changed.
"""

from __future__ import annotations

from broker.command import Script

# Publishes `events`, which came as `came`, on `channel`. Returns how many subscribers Redis had for the last,
# its position, and why it is not kept, each empty where there is none.
_APPEND = """
local function unkept(channel, events, why)
    local receivers = 0
    for _, event in ipairs(events) do receivers = redis.call('PUBLISH', channel, '\\1u ' .. event) end
    return {receivers, '', why}
end

local function append(top, stream, channel, events, came, tag, ttl, length, ms, generation)
    local epoch, offset, recorded
    local found = redis.pcall('GET', top)
    if type(found) == 'table' then return unkept(channel, events, found['err']) end
    if found then epoch, offset, recorded = string.match(found, '^(%d+) (%d+) %d+ (%d+)$') end
    if not epoch then
        epoch, offset, recorded = tag, 0, generation
        redis.pcall('DEL', stream)
    end
    if came == 'r' and recorded ~= generation then
        came = 'g' .. generation
        -- Nothing of this channel was ever recorded: it cannot be known what was missed, nor that anything was.
        if recorded == '0' and tonumber(offset) > 0 then came = 'r' end
    end
    local receivers, position
    for index, event in ipairs(events) do
        offset = string.format('%d', offset + 1)
        local added = redis.pcall('XADD', stream, 'MAXLEN', length, offset .. '-' .. tag, came, event)
        if type(added) == 'table' then
            local rest = {}
            for left = index, #events do rest[#rest + 1] = events[left] end
            return unkept(channel, rest, added['err'])
        end
        position = epoch .. ':' .. offset .. ':' .. tag
        receivers = redis.call('PUBLISH', channel, '\\1' .. came .. ':' .. position .. ' ' .. event)
        if string.sub(came, 1, 1) == 'g' then came = 'r' end
    end
    if came ~= 's' then recorded = generation end
    redis.call('SET', top, epoch .. ' ' .. offset .. ' ' .. tag .. ' ' .. recorded, 'PX', ttl)
    redis.call('PEXPIRE', stream, ms)
    return {receivers, position, ''}
end
"""

# KEYS: types, top, events, memory (of an idempotency key; `-` for none).
# ARGV: channel with the prefix, its type, "<length> <ms>" where Redis has none for the type, the event, a random
# tag, ms that the position is kept, ms to remember the idempotency key.
# Returns receivers, position, why it is not kept, and 1 where the answer is that of an earlier call.
PUBLISH = Script(
    _APPEND
    + """
if KEYS[4] ~= '-' then
    local seen = redis.call('HMGET', KEYS[4], 'receivers', 'position', 'why')
    if seen[1] then return {tonumber(seen[1]), seen[2], seen[3], 1} end
    -- First of all: where Redis takes no writes, nothing is published that a second try would publish again.
    redis.call('HSET', KEYS[4], 'receivers', 0, 'position', '', 'why', '')
    redis.call('PEXPIRE', KEYS[4], ARGV[7])
end
local bounds = redis.call('HGET', KEYS[1], ARGV[2]) or ARGV[3]
local length, ms = string.match(bounds, '^(%d+) (%d+)$')
local done
if length == '0' then
    done = {redis.call('PUBLISH', ARGV[1], ARGV[4]), '', ''}
else
    done = append(KEYS[2], KEYS[3], ARGV[1], {ARGV[4]}, 's', ARGV[5], ARGV[6], length, ms, '0')
end
if KEYS[4] ~= '-' then
    redis.call('HSET', KEYS[4], 'receivers', done[1], 'position', done[2], 'why', done[3])
end
done[4] = 0
return done
"""
)

# KEYS: types, memory (`-` for none), then top and events of each item.
# ARGV: a random tag, ms that positions are kept, digest of the request, ms to remember it, then for each item
# channel, type, "<length> <ms>", event.
# Returns whether it was published before (-1: something else was), how many Redis took, and why not all.
PUBLISH_ALL = Script(
    _APPEND
    + """
if KEYS[2] ~= '-' then
    local seen = redis.call('HMGET', KEYS[2], 'digest', 'taken', 'why')
    if seen[1] == ARGV[3] then return {1, tonumber(seen[2]), seen[3] or ''} end
    if seen[1] then return {-1, 0, ''} end
    redis.call('HSET', KEYS[2], 'digest', ARGV[3], 'taken', 0, 'why', '')
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
local taken, why = 0, ''
for item = 1, (#KEYS - 2) / 2 do
    local at = item * 4
    local bounds = redis.call('HGET', KEYS[1], ARGV[at + 2]) or ARGV[at + 3]
    local length, ms = string.match(bounds, '^(%d+) (%d+)$')
    local reply
    if length == '0' then
        reply = redis.pcall('PUBLISH', ARGV[at + 1], ARGV[at + 4])
    else
        local top, events = KEYS[item * 2 + 1], KEYS[item * 2 + 2]
        reply = append(top, events, ARGV[at + 1], {ARGV[at + 4]}, 's', ARGV[1], ARGV[2], length, ms, '0')
    end
    if type(reply) == 'table' and reply['err'] then why = reply['err'] else taken = taken + 1 end
end
if KEYS[2] ~= '-' then
    if taken > 0 then
        redis.call('HSET', KEYS[2], 'taken', taken, 'why', why)
    else
        redis.call('DEL', KEYS[2])
    end
end
return {0, taken, why}
"""
)

# Records what came by plain PUBLISH on one channel, while the lease is ours.
# KEYS: lease, top, events. ARGV: who holds the lease, channel with the prefix, a random tag, ms that the
# position is kept, length, ms, generation, then the events.
# Returns -1 where the lease is not ours (any more), else receivers, position, and why the last are not kept.
RECORD = Script(
    _APPEND
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local events = {}
for index = 8, #ARGV do events[index - 7] = ARGV[index] end
return append(KEYS[2], KEYS[3], ARGV[2], events, 'r', ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
"""
)

# Takes or renews the lease of the recorder. KEYS: lease, generation. ARGV: who, ms, 1 to begin a new generation.
# Returns 0 where another has it, else the generation.
LEASE = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] == '1' then return redis.call('INCR', KEYS[2]) end
return tonumber(redis.call('GET', KEYS[2]) or 0)
""")

# Gives the lease up. KEYS: lease. ARGV: who.
RELEASE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")

# A page of a channel's history. KEYS: top, events, generation.
# ARGV: epoch and offset to read from (the event there comes first, where it is still kept), or an empty epoch
# and how many of the newest; most events, most bytes (one event comes, whatever its size); a random tag, and ms,
# for a channel that has no position yet: it gets one, so that who comes now can come back to here.
# Returns top, generation, and the entries as XRANGE has them.
READ = Script("""
local top = redis.call('GET', KEYS[1])
if not top then
    top = ARGV[5] .. ' 0 0 0'
    redis.pcall('SET', KEYS[1], top, 'PX', ARGV[6])
    redis.pcall('DEL', KEYS[2])
end
local epoch, offset = string.match(top, '^(%d+) (%d+) ')
local from = '-'
if ARGV[1] == epoch then
    from = ARGV[2] .. '-0'
elseif ARGV[1] == '' then
    from = string.format('%d', math.max(offset - ARGV[2], 0) + 1) .. '-0'
end
local entries, size = {}, 0
local most, most_bytes, step = tonumber(ARGV[3]), tonumber(ARGV[4]), 8
while #entries < most and size < most_bytes do
    local found = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', math.min(step, most - #entries))
    for _, entry in ipairs(found) do
        if size < most_bytes then
            entries[#entries + 1] = entry
            size = size + #entry[2][2]
        end
    end
    if #found < step then break end
    from = '(' .. found[#found][1]
    step = step * 2
end
return {top, redis.call('GET', KEYS[3]) or '0', entries}
""")
