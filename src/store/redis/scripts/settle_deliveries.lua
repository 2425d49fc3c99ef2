#!lua flags=allow-oom
-- Settles a batch of claimed deliveries of one partition, each fenced by its score.
-- KEYS: 1 owner, 2 due, 3 dead, 4 outcomes, 5.. the records of the deliveries
-- ARGV: 1 sequence, then per delivery: member, fence, 'ended' | 'waits' | 'dead', wait ms, outcome, record or dead letter
-- -> a string with '1' (written) or '0' (lost) for each
local before = redis.call('HMGET', KEYS[1], 'deliveries', 'written')
if before[1] == ARGV[1] then return before[2] end -- done before; its answer was lost

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local written, outcomes, letters = {}, {}, {}
for n = 1, #KEYS - 4 do
  local at = n * 6 - 4
  local score = redis.call('ZSCORE', KEYS[2], ARGV[at])
  if score and tonumber(score) == ARGV[at + 1] + 0.5 then
    if ARGV[at + 2] == 'dead' then letters[#letters + 1] = ARGV[at + 5] end
    if ARGV[at + 4] ~= '' then outcomes[#outcomes + 1] = ARGV[at + 4] end
    written[n] = '1'
  else
    written[n] = '0'
  end
end
-- What can be refused comes first: a call that ends here has taken nothing out of the schedule.
for _, letter in ipairs(letters) do redis.call('XADD', KEYS[3], '*', 'd', letter) end
if #outcomes > 0 then redis.call('XADD', KEYS[4], '*', 'o', table.concat(outcomes, '\n')) end
for n = 1, #KEYS - 4 do
  local at = n * 6 - 4
  if written[n] == '1' then
    if ARGV[at + 2] == 'waits' then
      redis.call('SET', KEYS[4 + n], ARGV[at + 5])
      redis.call('ZADD', KEYS[2], now + ARGV[at + 3], ARGV[at])
    else
      redis.call('ZREM', KEYS[2], ARGV[at])
      redis.call('UNLINK', KEYS[4 + n])
    end
  end
end
local answer = table.concat(written)
if before[1] then redis.call('HSET', KEYS[1], 'deliveries', ARGV[1], 'written', answer) end
return answer
