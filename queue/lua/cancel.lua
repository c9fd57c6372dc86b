-- ARGV: prefix, key, id
local key = ARGV[2]
local i, f, element = find(key, ARGV[3])
if not i then return 'GONE' end
local s = call('HMGET', state(key), 'run', 'stage')
if i == 0 and s[1] then
  signal(key)
  return 'SIGNALLED'
end
if i == 0 and s[2] then -- put off, and perhaps at work outside: its next owner settles it, at once
  call('HSET', state(key), 'cancel', '1')
  unplace(key)
  ready(key, f[3])
  save()
  return 'SIGNALLED'
end
call('LREM', list(key), 1, element)
count({f}, -1)
if i == 0 then
  unplace(key)
  handOn(f)
  local next = call('LINDEX', list(key), 0)
  if next then -- the next job may go, or the key is idle
    ready(key, whose(next)[3])
  else
    call('EXPIRE', state(key), 30 * DAY)
  end
end
save()
return 'CANCELLED'
