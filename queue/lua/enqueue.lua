-- ARGV: prefix, key, id, user, group, payload, limits per key, per user and in all (0: none), only if idle (1 or 0),
-- then, if the caller has a slot for it: owner, lease in ms, limits of running jobs in all, per user and per group
-- Returns a status, the job's number, how many of its key are before it, and the claim if it was claimed at once.
local key, id, user = ARGV[2], ARGV[3], ARGV[4]
local perKey, perUser, total = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
-- The first write: when memory is full it is refused, and nothing else was done.
if not call('SET', P .. 'd:' .. id, 1, 'EX', 3 * DAY, 'NX') then return {'DUP', '0', '0', {}} end
local s = call('HMGET', state(key), 'in', 'run', 'seq', 'fence')
local depth = s[1] and call('LLEN', list(key)) or 0
look('count', {'all', 'u:' .. user})

local waiting = s[2] and depth - 1 or depth
local refused
if ARGV[10] == '1' and depth > 0 then
  refused = 'BUSY'
elseif perKey > 0 and waiting >= perKey then
  refused = 'FULL_KEY'
elseif perUser > 0 and books.count['u:' .. user] >= perUser then
  refused = 'FULL_USER'
elseif total > 0 and books.count.all >= total then
  refused = 'FULL_TOTAL'
end
if refused then
  call('DEL', P .. 'd:' .. id)
  return {refused, '0', num(depth), {}}
end

local f = {num(tonumber(s[3] or '0') + 1), id, user, ARGV[5], '', ARGV[6]}
call('RPUSH', list(key), join(key, f))
count({f}, 1)
local claims = {}
if depth > 0 then
  call('HSET', state(key), 'seq', f[1])
else
  if s[3] then call('PERSIST', state(key)) end
  local owner = ARGV[11]
  local free = owner and call('EXISTS', P .. 'ready', P .. 'orphan') == 0 -- nobody was here before
  if free then
    look('run', {'all', 'u:' .. user, 'g:' .. f[4]})
    free = not (over('all', tonumber(ARGV[13])) or over('u:' .. user, tonumber(ARGV[14])) or over('g:' .. f[4], tonumber(ARGV[15])))
  end
  if free then
    local at = now()
    claims[1] = begin(key, f, owner, at, s[4], 'seq', f[1])
    call('ZADD', P .. 'lease', num(at + tonumber(ARGV[12])), key)
    call('SADD', P .. 'own:' .. owner, key)
    running({f}, 1)
  else
    ready(key, user, 'seq', f[1])
  end
end
save()
return {'OK', f[1], num(depth), claims}
