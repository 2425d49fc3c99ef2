#!lua flags=allow-oom
-- Takes a claimed delivery whose record is missing or can't be read out of the schedule, and keeps what there is of it.
-- KEYS: 1 due, 2 record, 3 damaged   ARGV: 1 member, 2 fence   -> 1 when it was taken out
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= ARGV[2] / 2048 then return 0 end
local record = redis.call('GET', KEYS[2])
redis.call('XADD', KEYS[3], '*', 'delivery', ARGV[1], 'record', record or '')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[2])
return 1
