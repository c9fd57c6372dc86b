-- ARGV: prefix, owner, lease in ms, how many to claim, limits of running jobs in all, per user and per group
-- (0: none), then for each finished claim: key, id, fence
-- Finishes first and claims afterwards, so that freed slots are used at once.
local owner, ttl, want = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local maxAll, maxUser, maxGroup = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local at = now()

local finished, done, left, next, users = {}, {}, {}, {}, {} -- answers; jobs that ended; their keys; those that have more, and whose
for i = 8, #ARGV, 3 do
  local key, id, fence = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local how = holds(key, id, fence)
  local job = how == 'OK' and call('LPOP', list(key))
  if job then
    local hash, after = state(key), call('LINDEX', list(key), 0)
    call('DEL', hash)
    if after then
      call('HSET', hash, 'fence', fence, 'last', fence, 'in', 'ready')
      next[#next + 1] = key
      users[#users + 1] = whose(after)[3]
    else
      call('HSET', hash, 'fence', fence, 'last', fence)
      call('EXPIRE', hash, 30 * DAY)
    end
    done[#done + 1] = whose(job)
    left[#left + 1] = key
  end
  finished[#finished + 1] = how
end
many('ZREM', 'lease', left)
many('SREM', 'own:' .. owner, left)
count(done, -1)
running(done, -1)
if call('EXISTS', P .. 'parks') == 1 then
  for _, f in ipairs(done) do handOn(f) end
end
local tags = {}
look('fair', users)
for i, key in ipairs(next) do
  tags[#tags + 1] = num(tag(users[i]))
  tags[#tags + 1] = key
end
many('ZADD', 'ready', tags)

local claims, leased, owned = {}, {}, {}
local function claim(key, f)
  claims[#claims + 1] = own(key, f, owner, at)
  leased[#leased + 1] = num(at + ttl)
  leased[#leased + 1] = key
  owned[#owned + 1] = key
end

if want > 0 then
  local orphans = call('ZRANGE', P .. 'orphan', 0, want - 1)
  for _, key in ipairs(orphans) do
    claim(key, head(key))
  end
  many('ZREM', 'orphan', orphans)
end

local function park(key, name, score)
  unplace(key)
  place(key, 'park:' .. name, score)
  call('SADD', P .. 'parks', 'park:' .. name)
end

look('run', {'all'})
local budget = 2 * want + 16
while #claims < want and budget > 0 and not over('all', maxAll) do
  local most = want - #claims
  if maxAll > 0 then most = math.min(most, maxAll - books.run.all) end
  local got = call('ZRANGE', P .. 'ready', 0, most - 1, 'WITHSCORES')
  if #got == 0 then break end
  local heads, fields, started = {}, {}, {}
  for i = 1, #got, 2 do
    local f = head(got[i])
    heads[#heads + 1] = f
    fields[#fields + 1] = 'u:' .. f[3]
    fields[#fields + 1] = 'g:' .. f[4]
  end
  look('run', fields)
  for i, f in ipairs(heads) do
    local key, score = got[2 * i - 1], tonumber(got[2 * i])
    budget = budget - 1
    if over('u:' .. f[3], maxUser) then
      park(key, 'u:' .. f[3], score)
      unpark('g:' .. f[4])
    elseif over('g:' .. f[4], maxGroup) then
      park(key, 'g:' .. f[4], score)
      unpark('u:' .. f[3])
    else
      claim(key, f)
      running({f}, 1)
      started[#started + 1] = key
      books.fair[''] = score
    end
  end
  many('ZREM', 'ready', started)
end
many('ZADD', 'lease', leased)
many('SADD', 'own:' .. owner, owned)

local waiting = call('EXISTS', P .. 'ready') == 1
if not waiting and call('EXISTS', P .. 'parks') == 0 then
  call('DEL', P .. 'fair')
  books.fair = {}
end
if call('EXISTS', P .. 'orphan') == 1 or waiting and not over('all', maxAll) then ring() end
save()
return {finished, claims}
