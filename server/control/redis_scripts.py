"""The scripts of Redis that write the control state, each of them atomic; `server.control.redis` describes the keys.

A Redis without memory refuses what a script would write, unless the script has deleted something before. So what changes the state is
refused (`WRITE`), and what keeps a few bytes in place of others deletes them first: replicas go on to read, and to see each other.
"""

# KEYS: state, log, moves. ARGV: 1 to create and 0 to replace, generation, write id, revision, time, then each key and its value.
# Returns the revision; nothing if there is a state that must not be.
BEGIN = """
local held = redis.call('HGET', KEYS[1], 'revision')
local is_new = ARGV[1] == '1'
if is_new and held then return false end
local revision = tonumber(ARGV[4])
if not is_new then revision = math.max(revision, tonumber(held or -1)) + 1 end
local text = string.format('%.0f', revision)

redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'generation', ARGV[2], 'revision', text, 'write_id', ARGV[3], 'log_bytes', 0)
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ':' .. ARGV[i], ARGV[i + 1]) end
redis.call('XADD', KEYS[2], text .. '-1', 'write_id', ARGV[3], 'size', 0, 'at', ARGV[5], 'by', '')
redis.call('XADD', KEYS[3], text .. '-1', 'write_id', ARGV[3])
return text
"""

# KEYS: state, log, moves. ARGV: generation, revision and write id of the position; the new write id, time, by, size; the bounds of the log,
# writes and bytes; then for each change its key with '+' or, to delete it, '-' before it, and its value.
# Returns 1; nothing if the state is at another position.
WRITE = """
local held = redis.call('HMGET', KEYS[1], 'generation', 'revision', 'write_id', 'log_bytes')
for i = 1, 3 do if held[i] ~= ARGV[i] then return false end end
local text = string.format('%.0f', tonumber(ARGV[2]) + 1)

local entry = {'write_id', ARGV[4], 'size', ARGV[7], 'at', ARGV[5], 'by', ARGV[6]}
for i = 10, #ARGV, 2 do
  local field = ':' .. string.sub(ARGV[i], 2)
  if string.sub(ARGV[i], 1, 1) == '+' then
    redis.call('HSET', KEYS[1], field, ARGV[i + 1])
  else
    redis.call('HDEL', KEYS[1], field)
  end
  entry[#entry + 1] = ARGV[i]
  entry[#entry + 1] = ARGV[i + 1]
end
if #entry > 6000 then
  -- More than Lua passes to a command. Whoever is behind reads the whole state.
  entry, held[4], ARGV[7] = {'write_id', ARGV[4], 'size', 0, 'at', ARGV[5], 'by', ARGV[6]}, 0, 0
  redis.call('DEL', KEYS[2])
end
redis.call('XADD', KEYS[2], text .. '-1', unpack(entry))
redis.call('XADD', KEYS[3], 'MAXLEN', 1, text .. '-1', 'write_id', ARGV[4])

local bytes, count = tonumber(held[4]) + tonumber(ARGV[7]), redis.call('XLEN', KEYS[2])
while count > 1 and (count > tonumber(ARGV[8]) or bytes > tonumber(ARGV[9])) do
  local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', KEYS[2], oldest[1])
  bytes, count = bytes - tonumber(oldest[2][4]), count - 1
end
redis.call('HSET', KEYS[1], 'revision', text, 'write_id', ARGV[4], 'log_bytes', string.format('%.0f', bytes))
return 1
"""

# KEYS: state, looks. Returns generation, revision and write id; it writes, so that the replicas of Redis can confirm it.
LOOK = """
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[2], '')
return redis.call('HMGET', KEYS[1], 'generation', 'revision', 'write_id')
"""

# KEYS: state, log, looks. ARGV: generation, revision and write id of the position; 1 to write as `LOOK` does.
# Returns the entries after the position; nothing if the log has it not.
LOG = """
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[3])
  redis.call('SET', KEYS[3], '')
end
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return false end
local own = redis.call('XRANGE', KEYS[2], ARGV[2] .. '-1', ARGV[2] .. '-1')[1]
if not own or own[2][2] ~= ARGV[3] then return false end
return redis.call('XRANGE', KEYS[2], ARGV[2] .. '-2', '+')
"""

# KEYS: replicas. ARGV: name, its announcement, milliseconds that it lives.
ANNOUNCE = """
local now = redis.call('TIME')
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now[1] * 1000 + now[2] / 1000 + ARGV[3]) .. ARGV[2])
"""

# KEYS: replicas. Returns the announcements of those that live, and forgets the others.
REPLICAS = """
local now, living = redis.call('TIME'), {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local expires, told = string.match(all[i + 1], '^(%d+) (.*)$')
  if expires and tonumber(expires) > now[1] * 1000 + now[2] / 1000 then
    living[#living + 1] = told
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return living
"""
