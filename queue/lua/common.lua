-- What every script begins with. ARGV[1] is the prefix of all keys, which share one hash tag; layout.go
-- describes them. Scripts read and check first and write afterwards: Redis does not roll back.
local P = ARGV[1]
local US = string.char(31)
local DAY = 86400
local call = redis.call

local function now()
  local t = call('TIME')
  local skew = tonumber(call('HGET', P .. 'meta', 'skew') or '0')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000) + skew
end

local function num(n) return string.format('%.0f', n) end
local function state(key) return P .. 's:' .. key end
local function list(key) return P .. 'q:' .. key end

-- An element is seq, id, user, group, revision, payload.
local function split(element)
  local f, from = {}, 1
  for i = 1, 5 do
    local at = string.find(element, US, from, true)
    f[i] = string.sub(element, from, at - 1)
    from = at + 1
  end
  f[6] = string.sub(element, from)
  return f
end

local function find(key, id)
  local all = call('LRANGE', list(key), 0, -1)
  for i, element in ipairs(all) do
    local f = split(element)
    if f[2] == id then return i - 1, f, element end
  end
end

-- One token wakes one replica; step rings again when work is left over.
local function ring()
  if call('LLEN', P .. 'wake') < 4 then call('RPUSH', P .. 'wake', '1') end
end

local function place(key, where, score)
  call('ZADD', P .. where, num(score), key)
  call('HSET', state(key), 'in', where)
end

local function unplace(key)
  local where = call('HGET', state(key), 'in')
  if not where then return end
  call('ZREM', P .. where, key)
  call('HDEL', state(key), 'in')
  if string.sub(where, 1, 5) == 'park:' and call('EXISTS', P .. where) == 0 then
    call('SREM', P .. 'parks', where)
  end
end

-- Start-time fair queuing: who has much waiting gets later tags than a newcomer.
local function ready(key, user)
  local v = tonumber(call('HGET', P .. 'fair', '') or '0')
  local tag = math.max(v, tonumber(call('HGET', P .. 'fair', user) or '-1') + 1)
  call('HSET', P .. 'fair', user, num(tag))
  place(key, 'ready', tag)
  ring()
end

local function add(hash, field, by)
  if call('HINCRBY', P .. hash, field, by) <= 0 then call('HDEL', P .. hash, field) end
end

local function count(f, by)
  add('count', 'all', by)
  add('count', 'u:' .. f[3], by)
end

local function running(f, by)
  add('run', 'all', by)
  add('run', 'u:' .. f[3], by)
  add('run', 'g:' .. f[4], by)
end

-- A free slot is handed on: one key that is parked for it is ready again, with its old tag.
local function unpark(name)
  local got = call('ZRANGE', P .. 'park:' .. name, 0, 0, 'WITHSCORES')
  if #got == 0 then return end
  unplace(got[1])
  place(got[1], 'ready', tonumber(got[2]))
  ring()
end

local function handOn(f)
  unpark('u:' .. f[3])
  unpark('g:' .. f[4])
end

-- After the head has left and the key is in no index: the next job may go, or the key is idle.
local function advance(key)
  local head = call('LINDEX', list(key), 0)
  if head then
    ready(key, split(head)[3])
  else
    call('EXPIRE', state(key), 30 * DAY)
  end
end

local function forget(key)
  call('HDEL', state(key), 'run', 'own', 'stage', 'att', 'cancel', 'tries', 'takes', 'at')
end

-- Is this claim the one that holds the key? Else ALREADY for the very claim that finished last, or STALE.
local function holds(key, id, fence)
  local s = call('HMGET', state(key), 'run', 'fence', 'in', 'last')
  if s[1] == id and s[2] == fence and s[3] == 'lease' then return 'OK' end
  if s[4] == id .. '@' .. fence then return 'ALREADY' end
  return 'STALE'
end

local function disown(key)
  local owner = call('HGET', state(key), 'own')
  if owner then
    call('SREM', P .. 'own:' .. owner, key)
    call('HDEL', state(key), 'own')
  end
end

local function signal(key)
  call('HSET', state(key), 'cancel', '1')
  local owner = call('HGET', state(key), 'own')
  if owner then
    call('RPUSH', P .. 'ctl:' .. owner, key)
    call('EXPIRE', P .. 'ctl:' .. owner, DAY)
  end
end

-- A claim begins: under a fence above all that the key ever had, also when its hash was lost or Redis was set back.
local function lease(key, at, ms)
  local fence = math.max(tonumber(call('HGET', state(key), 'fence') or '0') + 1, at)
  call('ZADD', P .. 'lease', num(at + tonumber(ms)), key)
  call('HSET', state(key), 'in', 'lease', 'fence', num(fence))
end

-- All that an owner needs to know of a claim.
local function told(key, mode)
  local f = split(call('LINDEX', list(key), 0))
  local s = call('HMGET', state(key), 'fence', 'stage', 'att', 'tries', 'takes', 'cancel')
  return {key, f[2], f[1], f[3], f[4], f[6], s[1], mode, s[2] or '', s[3] or '', s[4] or '0', s[5] or '0', s[6] or '0'}
end
