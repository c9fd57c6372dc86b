-- ARGV: prefix, key, id, fence, mode (retry, handoff or yield), delay in ms
-- A job that yields lets those go first that wait and are of an earlier order, and is claimed anew after them. If there is none, or it was
-- cancelled, it is put off.
local key, id = ARGV[2], ARGV[3]
local how = holds(key, id, ARGV[4])
if how ~= 'OK' then return how end
local at = now()
unplace(key)
disown(key)
local before -- the last one that goes before it
if ARGV[5] == 'yield' and not call('HGET', state(key), 'cancel') then
  local all = call('LRANGE', list(key), 0, -1)
  local order = orderOf(all[1])
  for i = 2, #all do
    local other = orderOf(all[i])
    if other >= order then break end
    if other ~= '' then before = all[i] end
  end
end
if before then
  local element = call('LPOP', list(key))
  call('LINSERT', list(key), 'AFTER', before, element)
  call('HDEL', state(key), 'run', 'stage', 'att', 'at', 'tries', 'takes')
  local f = whose(element)
  running({f}, -1)
  handOn(f)
  ready(key, whose(call('LINDEX', list(key), 0))[3])
elseif ARGV[5] == 'handoff' then
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
