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

local texts = {} -- number → its text
local function num(n)
  texts[n] = texts[n] or string.format('%.0f', n)
  return texts[n]
end

local function state(key) return P .. 's:' .. key end
local function list(key) return P .. 'q:' .. key end

-- An element is order, id, user, group, revision, payload. An id that begins as its key does, up to the last colon
-- of that, is kept without: a byte says how much it is. An order that is the rest of the id is kept as '='.
local function split(key, element)
  local order, same, id, user, group, revision, payload =
    string.match(element, '^([^\31]*)\31(.)([^\31]*)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31(.*)$')
  if order == '=' then order = id end
  return {order, string.sub(key, 1, string.byte(same) - 32) .. id, user, group, revision, payload}
end

-- No more than user and group of it: each text costs.
local function whose(element)
  return {'', '', string.match(element, '^[^\31]*\31[^\31]*\31([^\31]*)\31([^\31]*)')}
end

local function join(key, f)
  local same = string.match(key, '^.*:') or ''
  if #same > 90 or string.sub(f[2], 1, #same) ~= same then same = '' end
  local rest, order = string.sub(f[2], #same + 1), f[1]
  if order == rest then order = '=' end
  return table.concat({order, string.char(32 + #same) .. rest, f[3], f[4], f[5], f[6]}, US)
end

-- By what a job is ordered among those of its key that wait; '' is by when it came.
local function orderOf(element)
  local order, rest = string.match(element, '^([^\31]*)\31.([^\31]*)')
  if order == '=' then order = rest end
  return order
end

-- The job at the head of a key.
local function head(key) return split(key, call('LINDEX', list(key), 0)) end

local function find(key, id)
  local all = call('LRANGE', list(key), 0, -1)
  for i, element in ipairs(all) do
    local f = split(key, element)
    if f[2] == id then return i - 1, f, element end
  end
end

-- One call for many arguments: as many at a time as Lua's stack takes.
local function many(command, name, args)
  for i = 1, #args, 1000 do
    call(command, P .. name, unpack(args, i, math.min(i + 999, #args)))
  end
end

-- The hashes that all jobs share. A script reads what it needs of one with look, and writes what it changed
-- with save, when it is through: a call for each costs more than all the rest.
local books, stored = {run = {}, count = {}, fair = {}}, {run = {}, count = {}, fair = {}} -- hash → field → number

local function look(name, fields)
  local book, new = books[name], {}
  for _, field in ipairs(fields) do
    if not book[field] then
      book[field] = 0
      new[#new + 1] = field
    end
  end
  for i = 1, #new, 1000 do
    local got = call('HMGET', P .. name, unpack(new, i, math.min(i + 999, #new)))
    for j, n in ipairs(got) do
      book[new[i + j - 1]] = tonumber(n or '0')
      stored[name][new[i + j - 1]] = tonumber(n or '0')
    end
  end
end

local function save()
  for name, book in pairs(books) do
    local set, gone = {}, {}
    for field, n in pairs(book) do
      if n ~= stored[name][field] and n > 0 then
        set[#set + 1] = field
        set[#set + 1] = num(n)
      elseif n ~= stored[name][field] then
        gone[#gone + 1] = field
      end
    end
    many('HSET', name, set)
    many('HDEL', name, gone)
  end
end

local function add(name, fields, by)
  look(name, fields)
  for _, field in ipairs(fields) do books[name][field] = books[name][field] + by end
end

-- All take the fields of jobs.
local function addJobs(name, jobs, by)
  local fields = {}
  for _, f in ipairs(jobs) do
    fields[#fields + 1] = 'all'
    fields[#fields + 1] = 'u:' .. f[3]
    fields[#fields + 1] = 'g:' .. f[4]
  end
  add(name, fields, by)
end

local function count(jobs, by) addJobs('count', jobs, by) end

local function running(jobs, by) addJobs('run', jobs, by) end

-- Is there no room for one more? 0 is no limit. Its field was looked at.
local function over(name, max) return max > 0 and books.run[name] >= max end

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
local function tag(user)
  look('fair', {'', user})
  local fair = books.fair
  fair[user] = math.max(fair[''], fair[user] + 1)
  return fair[user]
end

local function ready(key, user)
  place(key, 'ready', tag(user))
  ring()
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

-- Is this claim the one that holds the key? Else ALREADY for the very claim that finished last, or STALE.
local function holds(key, id, fence)
  local s = call('HMGET', state(key), 'run', 'fence', 'in', 'last')
  if s[1] == id and s[2] == fence and s[3] == 'lease' then return 'OK' end
  if s[4] == fence then return 'ALREADY' end
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
  local s = call('HMGET', state(key), 'own', 'run')
  if s[1] then
    call('RPUSH', P .. 'ctl:' .. s[1], key .. US .. s[2])
    call('EXPIRE', P .. 'ctl:' .. s[1], DAY)
  end
end

-- All that an owner needs to know of a claim: f is its job, s its fence, stage, att, tries, takes, cancel.
local function told(key, f, mode, s)
  return {key, f[2], f[1], f[3], f[4], f[6], s[1], mode, s[2] or '', s[3] or '', s[4] or '0', s[5] or '0', s[6] or '0'}
end

-- Fences of a key rise, and are never below the clock: its hash may have been lost.
local function rise(fence, at) return num(math.max(tonumber(fence or '0') + 1, at)) end

-- Makes a job that was never claimed the owner's; fence is the last one of its key. The caller enters the key in lease and own:…, and
-- counts it.
local function begin(key, f, owner, at, fence)
  local s = {rise(fence, at), 'claimed'}
  call('HSET', state(key), 'in', 'lease', 'run', f[2], 'own', owner, 'fence', s[1], 'stage', s[2], 'at', num(at))
  return told(key, f, 'start', s)
end

-- The same for the head of a key, which may have had an owner.
local function own(key, f, owner, at)
  local hash = state(key)
  local s = call('HMGET', hash, 'fence', 'stage')
  if not s[2] then return begin(key, f, owner, at, s[1]) end
  s = {rise(s[1], at), s[2], unpack(call('HMGET', hash, 'att', 'tries', 'takes', 'cancel'))}
  call('HSET', hash, 'in', 'lease', 'run', f[2], 'own', owner, 'fence', s[1])
  return told(key, f, 'attach', s)
end
