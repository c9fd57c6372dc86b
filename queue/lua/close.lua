-- ARGV: prefix, key, id, user, group, payload of the last job
-- Drops what waits, signals what runs, and appends the last job. Returns OK or DUP, the id that runs or '', dropped elements.
local key, id = ARGV[2], ARGV[3]
if call('EXISTS', P .. 'd:' .. id) == 1 then return {'DUP', '', {}} end
call('SET', P .. 'd:' .. id, 1, 'EX', 3 * DAY)
local s = call('HMGET', state(key), 'run', 'stage')
local all = call('LRANGE', list(key), 0, -1)
local from = 1
if #all > 0 and (s[1] or s[2]) then from = 2 end -- the head was claimed: it gets an end of its own
local dropped = {}
for i = from, #all do
  local f = whose(all[i])
  call('RPOP', list(key))
  count({f}, -1)
  dropped[#dropped + 1] = all[i]
  if i == 1 then
    unplace(key)
    handOn(f)
  end
end
local runs = ''
if from == 2 then
  runs = split(key, all[1])[2]
  signal(key)
  if not s[1] then
    unplace(key)
    ready(key, whose(all[1])[3])
  end
end
local f = {'', id, ARGV[4], ARGV[5], '', ARGV[6]}
call('PERSIST', state(key))
call('RPUSH', list(key), join(key, f))
count({f}, 1)
if from == 1 then ready(key, f[3]) end
save()
return {'OK', runs, dropped}
