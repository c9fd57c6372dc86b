-- ARGV: prefix, key, id, user, group, payload, limits per key, per user and in all (0: none), only if idle (1 or 0)
local key, id = ARGV[2], ARGV[3]
local perKey, perUser, total = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if call('EXISTS', P .. 'd:' .. id) == 1 then return {'DUP', '0', '0'} end
local depth = call('LLEN', list(key))
if ARGV[10] == '1' and depth > 0 then return {'BUSY', '0', num(depth)} end
local waiting = depth
if call('HEXISTS', state(key), 'run') == 1 then waiting = depth - 1 end
if perKey > 0 and waiting >= perKey then return {'FULL_KEY', '0', num(depth)} end
if perUser > 0 and tonumber(call('HGET', P .. 'count', 'u:' .. ARGV[4]) or '0') >= perUser then
  return {'FULL_USER', '0', num(depth)}
end
if total > 0 and tonumber(call('HGET', P .. 'count', 'all') or '0') >= total then return {'FULL_TOTAL', '0', num(depth)} end

call('SET', P .. 'd:' .. id, key, 'EX', 3 * DAY)
local f = {num(call('HINCRBY', state(key), 'seq', 1)), id, ARGV[4], ARGV[5], '', ARGV[6]}
call('PERSIST', state(key))
call('RPUSH', list(key), table.concat(f, US))
count(f, 1)
if depth == 0 then ready(key, f[3]) end
return {'OK', f[1], num(depth)}
