-- ARGV: prefix, key, id, fence, mode (retry or handoff), delay in ms
local key, id = ARGV[2], ARGV[3]
local how = holds(key, id, ARGV[4])
if how ~= 'OK' then return how end
local at = now()
unplace(key)
disown(key)
if ARGV[5] == 'handoff' then
  place(key, 'orphan', at)
  ring()
else
  local f = head(key)
  call('HDEL', state(key), 'run')
  call('HINCRBY', state(key), 'tries', 1)
  place(key, 'delay', at + tonumber(ARGV[6]))
  running({f}, -1)
  handOn(f)
  if call('ZCARD', P .. 'ready') > 0 then ring() end -- what waited for a slot in all
end
save()
return 'OK'
