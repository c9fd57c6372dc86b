-- ARGV: prefix, key, id, user, group, payload, order, limits per key, per user, per group and in all (0: none), only if
-- idle (1 or 0), then, if the caller has a slot for it: owner, lease in ms, limits of running jobs in all, per user and per group
-- Returns a status, how many of its key are before it, and the claim if it was claimed at once.
local key, id, user, group, order = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[7]
local perKey, perUser, perGroup, total = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
-- The first write: when memory is full it is refused, and nothing else was done.
if not call('SET', P .. 'd:' .. id, 1, 'EX', 3 * DAY, 'NX') then return {'DUP', '0', {}} end
local s = call('HMGET', state(key), 'in', 'run', 'stage', 'fence')
local depth = s[1] and call('LLEN', list(key)) or 0
look('count', {'all', 'u:' .. user, 'g:' .. group})

local waiting = s[2] and depth - 1 or depth
local refused
if ARGV[12] == '1' and depth > 0 then
  refused = 'BUSY'
elseif perKey > 0 and waiting >= perKey then
  refused = 'FULL_KEY'
elseif perUser > 0 and books.count['u:' .. user] >= perUser then
  refused = 'FULL_USER'
elseif perGroup > 0 and books.count['g:' .. group] >= perGroup then
  refused = 'FULL_GROUP'
elseif total > 0 and books.count.all >= total then
  refused = 'FULL_TOTAL'
end
if refused then
  call('DEL', P .. 'd:' .. id)
  return {refused, num(depth), {}}
end

local f = {order, id, user, group, '', ARGV[6]}
local ahead, behind = depth, nil -- it goes before the first that was never claimed and is of a later order
for i = depth - 1, order == '' and depth or s[3] and 1 or 0, -1 do
  local element = call('LINDEX', list(key), i)
  local other = orderOf(element)
  if other > order then
    ahead, behind = i, element
  elseif other ~= '' then
    break
  end
end
if behind then
  call('LINSERT', list(key), 'BEFORE', behind, join(key, f))
else
  call('RPUSH', list(key), join(key, f))
end
count({f}, 1)
local claims = {}
if depth > 0 and ahead == 0 then -- the key waits for it from now on, and leaves the slot that it may have been given
  unplace(key)
  handOn(whose(behind))
  ready(key, user)
elseif depth == 0 then
  if s[4] then call('PERSIST', state(key)) end
  local owner = ARGV[13]
  local free = owner and call('EXISTS', P .. 'ready', P .. 'orphan') == 0 -- nobody was here before
  if free then
    look('run', {'all', 'u:' .. user, 'g:' .. group})
    free = not (over('all', tonumber(ARGV[15])) or over('u:' .. user, tonumber(ARGV[16])) or over('g:' .. group, tonumber(ARGV[17])))
  end
  if free then
    local at = now()
    claims[1] = begin(key, f, owner, at, s[4])
    call('ZADD', P .. 'lease', num(at + tonumber(ARGV[14])), key)
    call('SADD', P .. 'own:' .. owner, key)
    running({f}, 1)
  else
    ready(key, user)
  end
end
save()
return {'OK', num(ahead), claims}
