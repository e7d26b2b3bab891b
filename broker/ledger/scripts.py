"""The ledger's steps, each a script that Redis runs as one.

Law: times are milliseconds since 1970 by Redis' own clock, and ages count from when Redis was last there
for everybody. A script looks at and changes what its KEYS name, and (where it must find the states of
entries) keys that begin as one of its ARGV says, which have the same hash tag. A refused PUBLISH stops
nothing: who watches reads the ledger.
"""

from __future__ import annotations

from broker.command import Script

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# The last key is the pulse. Every daemon, watcher and worker comes by every second; where nobody came for
# longer, Redis was away for all of them: no silence counts that began before it was back.
_PULSE = (
    _NOW
    + """
local pulse = redis.call('HMGET', KEYS[#KEYS], 'seen', 'back')
local back = tonumber(pulse[2] or 0)
if not pulse[1] or now - pulse[1] > 2000 then
    back = now
    redis.call('HSET', KEYS[#KEYS], 'back', back)
end
redis.call('HSET', KEYS[#KEYS], 'seen', now)
local function since(moment) return now - math.max(tonumber(moment), back) end
"""
)

# An entry that a worker has goes back to the end of the queue.
_GIVE_BACK = """
local function give_back(requests, state, id, entry, worker)
    local owner = redis.call('XPENDING', requests, 'workers', entry, entry, 1)[1]
    local found = redis.call('HMGET', state, 'state', 'entry', 'worker', 'offset')
    if not owner or owner[2] ~= worker then return 0 end
    if found[1] == 'running' and found[3] ~= worker then
        -- Claimed, but not given up by whoever works on it.
        redis.call('XCLAIM', requests, 'workers', found[3], 0, entry, 'JUSTID')
        return 0
    end
    redis.call('XACK', requests, 'workers', entry)
    redis.call('XDEL', requests, entry)
    if (found[1] ~= 'queued' and found[1] ~= 'running') or found[2] ~= entry then return 0 end
    local fresh = redis.call('XADD', requests, '*', 'id', id)
    redis.call('HSET', state, 'state', 'queued', 'asked', now, 'entry', fresh, 'run', '', 'began', found[4])
    return 1
end
"""

# KEYS: requests, state. ARGV: id, parameters, user, grace ms, keep ms, most pending, ms that the state
# outlives the grace time while nobody takes it, the state key without its id.
# May be asked again. Where there is no room, entries go whose state has gone.
START = Script(
    _NOW
    + """
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[6]) then
    for _, pending in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
        if redis.call('EXISTS', ARGV[8] .. pending[2][2]) == 0 then redis.call('XDEL', KEYS[1], pending[1]) end
    end
    if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[6]) then return 0 end
end
local entry = redis.call('XADD', KEYS[1], '*', 'id', ARGV[1])
redis.call('HSET', KEYS[2], 'state', 'queued', 'parameters', ARGV[2], 'user', ARGV[3], 'grace', ARGV[4],
    'keep', ARGV[5], 'entry', entry, 'attempt', 0, 'deaths', 0, 'offset', 0, 'run', '', 'began', 0,
    'asked', now, 'watched', now)
redis.call('PEXPIRE', KEYS[2], ARGV[4] + ARGV[7])
return 1
"""
)

# KEYS: state, events, workers, pulse. ARGV: offset seen, most events, most bytes, worker silence ms, ms that
# the state outlives the grace time while nobody has taken it.
FOLLOW = Script(
    _PULSE
    + """
local found = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'asked', 'beat', 'lease', 'offset', 'grace',
    'run', 'began', 'keep')
if not found[1] then return {} end
redis.call('HSET', KEYS[1], 'watched', now)
if found[1] == 'queued' then
    local keep = found[10]
    if found[2] == '0' then keep = found[7] + ARGV[5] end
    redis.call('PEXPIRE', KEYS[1], keep)
    redis.call('PEXPIRE', KEYS[2], keep)
end
local events, bytes = {}, 0
if tonumber(found[6]) > tonumber(ARGV[1]) then
    for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
        bytes = bytes + #entry[2][4]
        if #events > 0 and bytes > tonumber(ARGV[3]) then break end
        events[#events + 1] = entry
    end
end
local workers = 0
if found[1] ~= 'over' then workers = redis.call('ZCOUNT', KEYS[3], now - ARGV[4], '+inf') end
return {found[1], tonumber(found[2]), since(found[3]), since(found[4] or now), tonumber(found[5] or 0),
    tonumber(found[6]), workers, events, found[8], tonumber(found[9])}
"""
)

# KEYS: state. A watcher is here until now.
TOUCH = Script(
    _NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'watched', now) end
"""
)

# KEYS: requests, state, pulse. ARGV: worker, entry, lease ms, the run's token.
# Returns attempt, deaths, unwatched ms, grace ms, parameters, user, offset.
# Whoever slept since it read the entry may find it with another, and must leave it.
TAKE = Script(
    _PULSE
    + """
local owner = redis.call('XPENDING', KEYS[1], 'workers', ARGV[2], ARGV[2], 1)[1]
if not owner or owner[2] ~= ARGV[1] then return {} end
local found = redis.call('HMGET', KEYS[2], 'state', 'entry', 'beat', 'lease', 'offset', 'keep')
if (found[1] ~= 'queued' and found[1] ~= 'running') or found[2] ~= ARGV[2] then
    redis.call('XACK', KEYS[1], 'workers', ARGV[2])
    redis.call('XDEL', KEYS[1], ARGV[2])
    return {}
end
if found[1] == 'running' then
    if since(found[3]) < tonumber(found[4]) then return {} end
    redis.call('HINCRBY', KEYS[2], 'deaths', 1)
end
local attempt = redis.call('HINCRBY', KEYS[2], 'attempt', 1)
redis.call('HSET', KEYS[2], 'state', 'running', 'worker', ARGV[1], 'run', ARGV[4], 'began', found[5],
    'lease', ARGV[3], 'beat', now)
redis.call('PEXPIRE', KEYS[2], found[6])
local rest = redis.call('HMGET', KEYS[2], 'deaths', 'watched', 'grace', 'parameters', 'user')
return {attempt, tonumber(rest[1]), since(rest[2]), tonumber(rest[3]), rest[4], rest[5], tonumber(found[5])}
"""
)

# KEYS: requests, state, events, pulse. ARGV: worker, entry, run. Returns unwatched ms and grace ms.
BEAT = Script(
    _PULSE
    + """
local found = redis.call('HMGET', KEYS[2], 'state', 'run', 'watched', 'grace', 'keep')
if found[1] ~= 'running' or found[2] ~= ARGV[3] then return {} end
redis.call('HSET', KEYS[2], 'beat', now)
redis.call('PEXPIRE', KEYS[2], found[5])
redis.call('PEXPIRE', KEYS[3], found[5])
redis.call('XCLAIM', KEYS[1], 'workers', ARGV[1], 0, ARGV[2], 'JUSTID')
return {since(found[3]), tonumber(found[4])}
"""
)

# KEYS: requests, state. ARGV: id, entry, worker.
RELEASE = Script(_NOW + _GIVE_BACK + "return give_back(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])")

# KEYS: requests, workers. ARGV: worker, the state key without its id. Returns how many entries it still has.
RETIRE = Script(
    _NOW
    + _GIVE_BACK
    + """
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], 'workers', '-', '+', 100, ARGV[1])) do
    local entry = redis.call('XRANGE', KEYS[1], pending[1], pending[1])[1]
    if entry then
        give_back(KEYS[1], ARGV[2] .. entry[2][2], entry[2][2], pending[1], ARGV[1])
    else
        redis.call('XACK', KEYS[1], 'workers', pending[1])
    end
end
local left = #redis.call('XPENDING', KEYS[1], 'workers', '-', '+', 1, ARGV[1])
if left == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'workers', ARGV[1]) end
return left
"""
)

# KEYS: requests, state, events. ARGV: run, offset of the event before, channel, the last one's name or '', events.
# Whoever did not hear the answer may ask again: what was appended by the same run is not appended twice.
APPEND = Script(
    _NOW
    + """
local found = redis.call('HMGET', KEYS[2], 'state', 'run', 'offset', 'keep', 'entry')
if found[2] ~= ARGV[1] then return 0 end
local offset = tonumber(ARGV[2])
local done = tonumber(found[3]) - offset
if done < 0 or done > #ARGV - 4 then return 0 end
if done > 0 then
    -- Was it this that was done, or has a watcher ended a run that was silent for too long?
    local there = redis.call('XRANGE', KEYS[3], found[3] .. '-0', found[3] .. '-0')[1]
    if not there or there[2][4] ~= ARGV[4 + done] then return 0 end
    if done == #ARGV - 4 then return 1 end
end
if found[1] ~= 'queued' and found[1] ~= 'running' then return 0 end
offset = offset + done
for index = 5 + done, #ARGV do
    offset = offset + 1
    local name = ''
    if index == #ARGV then name = ARGV[4] end
    redis.call('XADD', KEYS[3], offset .. '-0', 'name', name, 'event', ARGV[index])
    redis.call('HSET', KEYS[2], 'offset', offset)
    redis.pcall('PUBLISH', ARGV[3], ARGV[index])
end
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

# KEYS: requests, pulse. ARGV: worker, lease ms, cursor, most. Returns what XAUTOCLAIM does.
# While Redis was away nobody could renew a lease: everybody has a whole one from when it was back.
CLAIM = Script(
    _PULSE
    + """
if now - back < tonumber(ARGV[2]) then return {'0-0', {}} end
return redis.call('XAUTOCLAIM', KEYS[1], 'workers', ARGV[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
"""
)

# KEYS: pulse.
PULSE = Script(_PULSE)

# KEYS: workers, pulse. ARGV: worker, silence ms.
LIVE = Script(
    _PULSE
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 10 * ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
"""
)
