-- Leases tokens to a gateway: one call for all limits it needs tokens of. It runs in Redis, alone and whole.
--
-- KEYS[1] is the set of gateways, scored by when each was last heard of. Every other key is one limit: a number, the
-- time at which its bucket would be full again. No key: the bucket is full. All keys share one hash tag.
-- ARGV: the gateway, how long it counts as alive, then six numbers for each limit:
--   interval  time in which a token comes back
--   burst     tokens in a full bucket
--   back      tokens it held, all of them given back
--   keep      of those, what it takes again
--   owed      tokens it has spent without a lease
--   batch     tokens it would have in any case while there are some; 0: it asks for none
-- The answer: how many gateways there are, then two numbers for each limit: the tokens leased anew, or -1 where the
-- key held something else; and the time until the bucket is full, for what is leased counts as spent.
-- Times are microseconds of the server's clock, since 2026 so that a double keeps their fractions. A clock that jumps
-- empties or fills a bucket once: no bucket is ever further from full than its burst and what gateways may owe.

local EPOCH = 1767225600
local WIDTH = 6

local time = redis.call('TIME')
local now = (tonumber(time[1]) - EPOCH) * 1000000 + tonumber(time[2])
local stamp = string.format('%.0f', now)

local enlisted = redis.pcall('ZADD', KEYS[1], stamp, ARGV[1])
if type(enlisted) == 'table' and enlisted.err then
  if not string.find(enlisted.err, 'WRONGTYPE', 1, true) then
    return enlisted
  end
  -- No set: ours by its name, so that it is made one.
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[1], stamp, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - tonumber(ARGV[2])))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. stamp, '+inf')
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', tonumber(ARGV[2]) / 1000))
local gateways = redis.call('ZCARD', KEYS[1])

local answer = { gateways }
for n = 2, #KEYS do
  local at = 2 + (n - 2) * WIDTH
  local interval, burst = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local back, keep = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local owed, batch = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local depth = interval * burst
  local most = depth + depth / 20 + gateways * 100000

  local found = redis.pcall('GET', KEYS[n])
  local full_at = now
  if found then
    full_at = type(found) == 'string' and tonumber(found) or nil
  end
  local sound = full_at ~= nil and full_at == full_at

  -- Time until the bucket is full.
  local left = depth
  local leased = -1
  if sound then
    left = math.max(math.min(full_at - now, most) - back * interval, 0)
    left = math.min(left + (keep + owed) * interval, most)
    leased = 0
    if batch > 0 then
      -- The millionth makes up for what division loses.
      local free = math.floor((depth - left) / interval + 0.000001)
      free = math.max(0, math.min(free, burst))
      local share = math.ceil((free + keep) / gateways)
      leased = math.max(0, math.min(free, math.max(batch, share) - keep))
      left = left + leased * interval
    end
  end

  if left > 0 then
    local value = string.format('%.3f', now + left)
    left = math.min(left, 9e15)
    -- A second longer than it means anything.
    redis.call('SET', KEYS[n], value, 'PX', string.format('%.0f', math.ceil(left / 1000) + 1000))
  elseif found then
    redis.call('DEL', KEYS[n])
  end
  answer[#answer + 1] = leased
  answer[#answer + 1] = math.ceil(left)
end
return answer
