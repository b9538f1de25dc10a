"""The scripts of Redis that write histories, each of them atomic; `server.histories.redis` describes the keys.

Invariant: they keep the rules of `server.histories.history`, which the stores share that hold a history as a whole. A Redis without memory
refuses what a script would write only before the script's first write, and a DEL of nothing is one: so they delete where there is
something.
"""

_RENEW = """
for _, key in ipairs(KEYS) do
  if ttl_ms > 0 then redis.call('PEXPIRE', key, ttl_ms) else redis.call('PERSIST', key) end
end
"""

# KEYS: events, order, ids, profile. ARGV: max_events, time to live in ms (0: for ever), then for each event its score, its field in ids
# ('' for none) and the JSON of its member.
APPEND = (
    """
local events, order, ids = KEYS[1], KEYS[2], KEYS[3]
local max_events, ttl_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

-- Ids that outlived their evicted history would refuse its events when they are sent again.
if redis.call('EXISTS', events) == 0 and redis.call('EXISTS', order, ids) > 0 then redis.call('DEL', order, ids) end
local arrivals = tonumber(redis.call('HGET', ids, 'arrivals')) or 0

if arrivals == 0 or redis.call('LLEN', order) ~= redis.call('ZCARD', events) then
  local found, members = redis.call('ZRANGE', events, 0, -1, 'WITHSCORES'), {}
  for i = 1, #found, 2 do members[#members + 1] = {found[i], found[i + 1]} end
  table.sort(members, function(a, b) return a[1] < b[1] end)
  if #members > 0 then
    arrivals = math.max(arrivals, #members, tonumber(string.sub(members[#members][1], 1, 10), 16) or 0)
  end
  if redis.call('LLEN', order) > 0 then redis.call('DEL', order) end
  for i, member in ipairs(members) do
    redis.call('RPUSH', order, member[2])
    local known, content = pcall(cjson.decode, string.sub(member[1], 11))
    if known and type(content) == 'table' and type(content[1]) == 'string' then
      redis.call('HSET', ids, ':' .. content[1], arrivals - #members + i)
    end
  end
end

local before = arrivals
for i = 3, #ARGV, 3 do
  local score, id, json = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local known = id ~= '' and tonumber(redis.call('HGET', ids, id) or nil)
  if not known or known <= arrivals - 2 * max_events then
    arrivals = arrivals + 1
    if id ~= '' then redis.call('HSET', ids, id, arrivals) end
    redis.call('ZADD', events, score, string.format('%010x', arrivals) .. json)
    redis.call('RPUSH', order, score)
  end
end
redis.call('HSET', ids, 'arrivals', arrivals)

while redis.call('LLEN', order) > max_events do
  local score = redis.call('LPOP', order)
  local oldest = redis.call('ZRANGEBYSCORE', events, score, score, 'LIMIT', 0, 1)[1]
  if oldest then redis.call('ZREM', events, oldest) end
end

-- Ids beyond those that are remembered are let go a history at a time, so that most appends need not look for them.
if redis.call('HLEN', ids) > 3 * max_events + 1 then
  local all = redis.call('HGETALL', ids)
  for i = 1, #all, 2 do
    if all[i] ~= 'arrivals' and (tonumber(all[i + 1]) or 0) <= arrivals - 2 * max_events then redis.call('HDEL', ids, all[i]) end
  end
end

"""
    + _RENEW
    + "return math.min(arrivals - before, max_events)"
)

# KEYS: as above. ARGV: time to live in ms (0: for ever), the JSON of the profile.
PUT_PROFILE = "local ttl_ms = tonumber(ARGV[1]) redis.call('SET', KEYS[4], ARGV[2])" + _RENEW

# KEYS: as above. ARGV: time to live in ms. Returns 1 if one of them would have been kept longer.
LIMIT_LIFE = """
local ttl_ms, limited = tonumber(ARGV[1]), 0
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left == -1 or left > ttl_ms then
    redis.call('PEXPIRE', key, ttl_ms)
    limited = 1
  end
end
return limited
"""

# KEYS: as above. They are scripts only so that replicas are waited for as with other writes.
DELETE = "return redis.call('DEL', unpack(KEYS))"
DELETE_PROFILE = "return redis.call('DEL', KEYS[4])"

# KEYS: as above. ARGV: event_id and item_id with ":" before them, and timestamp, each '' for any. Members are in the order of their scores
# and arrivals, so the n-th of a score has the n-th place of that score in the list, which keeps its time to live.
DELETE_EVENTS = """
local events, order, ids = KEYS[1], KEYS[2], KEYS[3]
local event_id, item_id, timestamp = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found, met, gone, deleted = redis.call('ZRANGE', events, 0, -1, 'WITHSCORES'), {}, {}, 0
for i = 1, #found, 2 do
  local score = tonumber(found[i + 1])
  met[score] = (met[score] or 0) + 1
  local known, content = pcall(cjson.decode, string.sub(found[i], 11))
  if known and type(content) == 'table'
    and (event_id == '' or (type(content[1]) == 'string' and ':' .. content[1] == event_id))
    and (item_id == '' or (type(content[2]) == 'string' and ':' .. content[2] == item_id))
    and (not timestamp or score == timestamp)
  then
    redis.call('ZREM', events, found[i])
    gone[score] = gone[score] or {}
    gone[score][met[score]] = true
    deleted = deleted + 1
  end
end
if deleted > 0 then
  met = {}
  for place, text in ipairs(redis.call('LRANGE', order, 0, -1)) do
    local score = tonumber(text)
    met[score] = (met[score] or 0) + 1
    if gone[score] and gone[score][met[score]] then redis.call('LSET', order, place - 1, '') end
  end
  redis.call('LREM', order, 0, '')
  if redis.call('EXISTS', events) == 0 then redis.call('DEL', order, ids) end
end
return deleted
"""

# KEYS: one that nothing is kept under. It leaves nothing; the first DEL has a Redis without memory take the rest.
WRITE_NOTHING = "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], '') redis.call('DEL', KEYS[1])"
