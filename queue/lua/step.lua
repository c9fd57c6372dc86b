-- ARGV: prefix, owner, lease in ms, how many to claim, limits of running jobs in all, per user and per group
-- (0: none), then for each finished claim: key, id, fence
-- Finishes first and claims afterwards, so that freed slots are used at once.
local owner, ttl, want = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local maxAll, maxUser, maxGroup = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local at = now()

local finished = {}
for i = 8, #ARGV, 3 do
  local key, id, fence = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local how = holds(key, id, fence)
  if how == 'OK' then
    local f = split(call('LPOP', list(key)))
    unplace(key)
    disown(key)
    forget(key)
    call('HSET', state(key), 'last', id .. '@' .. fence)
    count(f, -1)
    running(f, -1)
    handOn(f)
    advance(key)
  end
  finished[#finished + 1] = how
end

local function own(key, id)
  unplace(key)
  lease(key, at, ttl)
  call('HSET', state(key), 'run', id, 'own', owner)
  call('SADD', P .. 'own:' .. owner, key)
end

local claims = {}
while #claims < want do
  local got = call('ZRANGE', P .. 'orphan', 0, 0)
  if #got == 0 then break end
  own(got[1], call('HGET', state(got[1]), 'run'))
  call('HINCRBY', state(got[1]), 'takes', 1)
  claims[#claims + 1] = told(got[1], 'attach')
end

local function over(name, max)
  return max > 0 and tonumber(call('HGET', P .. 'run', name) or '0') >= max
end

local function park(key, name, tag)
  unplace(key)
  place(key, 'park:' .. name, tag)
  call('SADD', P .. 'parks', 'park:' .. name)
end

local budget = 2 * want + 16
while #claims < want and budget > 0 and not over('all', maxAll) do
  budget = budget - 1
  local got = call('ZRANGE', P .. 'ready', 0, 0, 'WITHSCORES')
  if #got == 0 then break end
  local key, tag = got[1], tonumber(got[2])
  local f = split(call('LINDEX', list(key), 0))
  if over('u:' .. f[3], maxUser) then
    park(key, 'u:' .. f[3], tag)
    unpark('g:' .. f[4])
  elseif over('g:' .. f[4], maxGroup) then
    park(key, 'g:' .. f[4], tag)
    unpark('u:' .. f[3])
  else
    local mode = 'start'
    if call('HEXISTS', state(key), 'stage') == 1 then mode = 'attach' end
    own(key, f[2])
    if mode == 'start' then call('HSET', state(key), 'stage', 'claimed', 'at', num(at)) end
    running(f, 1)
    call('HSET', P .. 'fair', '', num(tag))
    claims[#claims + 1] = told(key, mode)
  end
end
if call('ZCARD', P .. 'ready') == 0 and call('SCARD', P .. 'parks') == 0 then call('DEL', P .. 'fair') end
if call('ZCARD', P .. 'orphan') > 0 or (call('ZCARD', P .. 'ready') > 0 and not over('all', maxAll)) then ring() end
return {finished, claims}
