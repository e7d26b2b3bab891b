"""The ledger's steps, each a script that Redis runs as one.

Law: a script only looks at and changes what its KEYS name, and PUBLISHes. Times are milliseconds since
1970 by Redis' own clock.
"""

from __future__ import annotations

from broker.command import Script

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: requests, state. ARGV: id, parameters, user, grace ms, keep ms, most pending, ms that the state
# outlives the grace time while nobody takes it, the state key without its id.
# Where there is no room, entries go whose state has gone.
START = Script(
    _NOW
    + """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[6]) then
    for _, pending in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 100)) do
        if redis.call('EXISTS', ARGV[8] .. pending[2][2]) == 0 then redis.call('XDEL', KEYS[1], pending[1]) end
    end
    if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[6]) then return 0 end
end
local entry = redis.call('XADD', KEYS[1], '*', 'id', ARGV[1])
redis.call('HSET', KEYS[2], 'state', 'queued', 'parameters', ARGV[2], 'user', ARGV[3], 'grace', ARGV[4],
    'keep', ARGV[5], 'entry', entry, 'attempt', 0, 'deaths', 0, 'offset', 0, 'asked', now, 'watched', now)
redis.call('PEXPIRE', KEYS[2], ARGV[4] + ARGV[7])
return 1
"""
)

# KEYS: state, events, workers. ARGV: offset seen, most events, whether this is a watcher, worker silence ms,
# ms that the state outlives the grace time while nobody has taken it.
FOLLOW = Script(
    _NOW
    + """
local found = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'asked', 'beat', 'lease', 'offset', 'grace')
if not found[1] then return {} end
if ARGV[3] == '1' then
    redis.call('HSET', KEYS[1], 'watched', now)
    if found[2] == '0' and found[1] == 'queued' then redis.call('PEXPIRE', KEYS[1], found[7] + ARGV[5]) end
end
local events = {}
if tonumber(found[6]) > tonumber(ARGV[1]) then
    events = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
end
local workers = 0
if found[1] == 'queued' then workers = redis.call('ZCOUNT', KEYS[3], now - ARGV[4], '+inf') end
return {found[1], tonumber(found[2]), now - found[3], now - (found[4] or now), tonumber(found[5] or 0),
    tonumber(found[6]), workers, events}
"""
)

# KEYS: state. A watcher that leaves was here until now.
TOUCH = Script(
    _NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'watched', now) end
"""
)

# KEYS: requests, state. ARGV: worker, entry, lease ms.
# Returns attempt, deaths, unwatched ms, grace ms, parameters, user, offset.
TAKE = Script(
    _NOW
    + """
local state = redis.call('HGET', KEYS[2], 'state')
if state ~= 'queued' and state ~= 'running' then
    redis.call('XACK', KEYS[1], 'workers', ARGV[2])
    redis.call('XDEL', KEYS[1], ARGV[2])
    return {}
end
if state == 'running' then redis.call('HINCRBY', KEYS[2], 'deaths', 1) end
local attempt = redis.call('HINCRBY', KEYS[2], 'attempt', 1)
redis.call('HSET', KEYS[2], 'state', 'running', 'worker', ARGV[1], 'lease', ARGV[3], 'beat', now)
local rest = redis.call('HMGET', KEYS[2], 'deaths', 'watched', 'grace', 'parameters', 'user', 'offset', 'keep')
redis.call('PEXPIRE', KEYS[2], rest[7])
return {attempt, tonumber(rest[1]), now - rest[2], tonumber(rest[3]), rest[4], rest[5], tonumber(rest[6])}
"""
)

# KEYS: requests, state, events. ARGV: worker, entry, attempt. Returns unwatched ms and grace ms.
BEAT = Script(
    _NOW
    + """
local found = redis.call('HMGET', KEYS[2], 'state', 'attempt', 'watched', 'grace', 'keep')
if found[1] ~= 'running' or found[2] ~= ARGV[3] then return {} end
redis.call('HSET', KEYS[2], 'beat', now)
redis.call('PEXPIRE', KEYS[2], found[5])
redis.call('PEXPIRE', KEYS[3], found[5])
redis.call('XCLAIM', KEYS[1], 'workers', ARGV[1], 0, ARGV[2], 'JUSTID')
return {now - found[3], tonumber(found[4])}
"""
)

# KEYS: requests, state. ARGV: id, entry, attempt. Back to the queue, as a new entry.
RELEASE = Script(
    _NOW
    + """
local found = redis.call('HMGET', KEYS[2], 'state', 'attempt')
if found[1] ~= 'running' or found[2] ~= ARGV[3] then return 0 end
redis.call('XACK', KEYS[1], 'workers', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
local entry = redis.call('XADD', KEYS[1], '*', 'id', ARGV[1])
redis.call('HSET', KEYS[2], 'state', 'queued', 'asked', now, 'entry', entry)
return 1
"""
)

# KEYS: requests, state, events. ARGV: attempt, offset of the event before, channel, the last one's name or '', events.
# Whoever did not hear the answer may ask again: what was appended by the same writer is not appended twice.
APPEND = Script(
    _NOW
    + """
local found = redis.call('HMGET', KEYS[2], 'state', 'attempt', 'offset', 'keep', 'entry')
if found[2] ~= ARGV[1] then return 0 end
local offset = tonumber(ARGV[2])
local done = tonumber(found[3]) - offset
if done < 0 or done > #ARGV - 4 then return 0 end
if done == #ARGV - 4 then return 1 end
if found[1] ~= 'queued' and found[1] ~= 'running' then return 0 end
offset = offset + done
for index = 5 + done, #ARGV do
    offset = offset + 1
    local name = ''
    if index == #ARGV then name = ARGV[4] end
    redis.call('XADD', KEYS[3], offset .. '-0', 'name', name, 'event', ARGV[index])
    redis.call('PUBLISH', ARGV[3], ARGV[index])
end
redis.call('HSET', KEYS[2], 'offset', offset)
if ARGV[4] ~= '' then
    redis.call('HSET', KEYS[2], 'state', 'over')
    redis.call('HDEL', KEYS[2], 'parameters')
    redis.call('XACK', KEYS[1], 'workers', found[5])
    redis.call('XDEL', KEYS[1], found[5])
end
redis.call('PEXPIRE', KEYS[2], found[4])
redis.call('PEXPIRE', KEYS[3], found[4])
return 1
"""
)

# KEYS: workers. ARGV: worker, silence ms.
LIVE = Script(
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 10 * ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
"""
)
