#!lua flags=allow-oom
-- Puts a delivery into the schedule, due now; removes the dead letter that it comes from.
-- KEYS: 1 due, 2 record, 3 dead, 4 letters, 5 outcomes, 6 later
-- ARGV: 1 member, 2 delivery's id, 3 the dead letter's entry or '', 4 1 to write a waiting one anew, 5 record, 6 outcome, 7 event's ms
-- -> SCHEDULED, HASTENED, HELD, GONE or DEAD
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] ~= '' then
  if #redis.call('XRANGE', KEYS[3], ARGV[3], ARGV[3]) == 0 then return 'GONE' end
elseif redis.call('ZSCORE', KEYS[4], ARGV[2]) then
  return 'DEAD'
end
local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or -1)
if score % 1 ~= 0 and score > now then return 'HELD' end -- a half: claimed, and its lease has not ended

if score < 0 or ARGV[4] == '1' then redis.call('SET', KEYS[2], ARGV[5]) end
redis.call('ZADD', KEYS[1], now, ARGV[1])
local outcome = redis.call('XADD', KEYS[5], '*', 'o', ARGV[6])
redis.call('ZADD', KEYS[6], ARGV[7], ARGV[7] .. ':' .. outcome)
if ARGV[3] ~= '' then
  redis.call('XDEL', KEYS[3], ARGV[3])
  redis.call('ZREM', KEYS[4], ARGV[2])
end
if score < 0 then return 'SCHEDULED' end
return 'HASTENED'
