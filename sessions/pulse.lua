-- KEYS: the memory. Returns its epoch, and the run id of the server that holds it; '' for what is not there or not told.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
return {redis.call('HGET', KEYS[1], 'epoch') or '', run}
