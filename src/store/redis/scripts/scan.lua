#!lua flags=no-writes
-- Reads a page of a stream: no more entries than asked for, and no more bytes than asked for once it has one.
-- KEYS: 1 stream   ARGV: 1 XRANGE or XREVRANGE, 2 first bound, 3 second bound, 4 entries at most, 5 bytes at most
-- -> {now, 1 when a limit ended it, entries...}
local time = redis.call('TIME')
local reply = {time[1] * 1000 + math.floor(time[2] / 1000), 1}
local from, left, room = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local step = 8 -- what a step reads beyond the limit is wasted, and large bodies are read whole
while left > 0 do
  step = math.min(step, left)
  local page = redis.call(ARGV[1], KEYS[1], from, ARGV[3], 'COUNT', step)
  for _, entry in ipairs(page) do
    reply[#reply + 1] = entry
    for _, value in ipairs(entry[2]) do room = room - #value end
    if room <= 0 then return reply end
    from = '(' .. entry[1]
    left = left - 1
  end
  if #page < step then
    reply[2] = 0
    return reply
  end
  step = math.min(step * 2, 64)
end
return reply
