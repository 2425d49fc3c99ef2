#!lua flags=allow-oom
-- Looks at a range of the schedule and makes the waiting deliveries of some subscriptions fall due now.
-- KEYS: 1 due   ARGV: 1 first rank, 2 how many to look at, 3 how many to change at most, 4.. subscriptions
-- -> {changed, rank to go on from or -1}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wanted = {}
for at = 4, #ARGV do wanted[ARGV[at]] = true end
local first, look, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local range = redis.call('ZRANGE', KEYS[1], first, first + look - 1, 'WITHSCORES')
local changed, seen = 0, 0
for at = 1, #range, 2 do
  if changed == most then return {changed, -1} end
  seen = seen + 1
  local score = tonumber(range[at + 1])
  -- A score with a half is the end of a lease: somebody is at work on it.
  if score > now and score % 1 == 0 and wanted[string.match(range[at], ':(.*)$')] then
    redis.call('ZADD', KEYS[1], 'XX', now, range[at])
    changed = changed + 1
  end
end
-- What changed went to ranks before this range, so the rank of the next one is unchanged.
if seen < look then return {changed, -1} end
return {changed, first + seen}
