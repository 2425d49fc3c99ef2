#!lua flags=allow-oom
-- Settles a batch of claimed events of one partition: one fence for the whole batch.
-- KEYS: 1 events, 2 owner, 3 due, 4 dead, 5 outcomes, 6.. the records of the deliveries
-- ARGV: 1 group, 2 sequence, 3 lease ms, 4 outcomes, 5 count of entries, 6 count of deliveries,
--       then entry ids, then per delivery: member, wait ms (-1: goes on being held), record, then dead letters
-- -> {'LOST'}, or {'WRITTEN', fence of the deliveries held}
local before = redis.call('HMGET', KEYS[2], 'events', 'fence')
if not before[1] then return {'LOST'} end
if before[1] == ARGV[2] then return {'WRITTEN', tonumber(before[2])} end -- done before; its answer was lost

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entries, deliveries = tonumber(ARGV[5]), tonumber(ARGV[6])
local held = now + ARGV[3] + 0.5 -- a half: claimed

local at = 7 + entries
for n = 1, deliveries do
  local wait = tonumber(ARGV[at + 1])
  local score = held
  if wait >= 0 then score = now + wait end
  redis.call('SET', KEYS[5 + n], ARGV[at + 2])
  redis.call('ZADD', KEYS[3], score, ARGV[at])
  at = at + 3
end
for n = at, #ARGV do redis.call('XADD', KEYS[4], '*', 'd', ARGV[n]) end
if ARGV[4] ~= '' then redis.call('XADD', KEYS[5], '*', 'o', ARGV[4]) end
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 7, 6 + entries))
redis.call('HSET', KEYS[2], 'events', ARGV[2], 'fence', held)
return {'WRITTEN', held}
