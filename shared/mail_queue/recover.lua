-- Puts back what dead workers held: claims whose time is over, and started entries of ours that have no claim.
-- The job keeps its field `claim`: that is how `claim.lua` counts the death.
--
-- Nothing is put back until mailers have reached this Redis for one claim's life without a gap: after an outage the
-- claims of the living look over, too, for nobody could renew them.
--
-- KEYS  10 since when mailers have reached this Redis, and when last
-- ARGV  8 most jobs to put back at once · 9 seconds that a claim lives · 10 seconds without a call that are a gap
--       11 where to go on among the started entries
-- Gives {number of jobs that were put back, where to go on}.
local most, life, gap, cursor = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local watch = KEYS[OWN_KEYS + 1]
local recovered = 0

local function put_back_of_the_dead(entry)
    local id, execution = string.match(entry, '^(.*):([^:]*)$')
    if not id then
        return redis.call('ZREM', STARTED, entry)
    end
    end_execution(id, execution)
    local job = redis.call('HMGET', JOB .. id, 'status', 'claim')
    if job[1] == 'started' and job[2] == execution then
        redis.call('HSET', JOB .. id, 'status', 'queued')
        redis.call('LPUSH', QUEUE, id)
        recovered = recovered + 1
    end
end

redis.call('EXPIRE', watch, life * 2)  -- first: see `settle.lua`
local seen = redis.call('HMGET', watch, 'since', 'last')
local is_gap = not seen[1] or now - tonumber(seen[2]) > gap
local since = is_gap and now or tonumber(seen[1])
redis.call('HSET', watch, 'since', seconds(since), 'last', seconds(now))
redis.call('EXPIRE', watch, life * 2)
if now - since < life then
    return {0, cursor}
end

for _, entry in ipairs(redis.call('ZRANGEBYSCORE', CLAIMS, '-inf', now, 'LIMIT', 0, most)) do
    redis.call('ZREM', CLAIMS, entry)
    put_back_of_the_dead(entry)
end
local page = redis.call('ZSCAN', STARTED, cursor, 'COUNT', most)
for position = 1, #page[2], 2 do
    local entry = page[2][position]
    if tonumber(page[2][position + 1]) == FAR and not redis.call('ZSCORE', CLAIMS, entry) then
        put_back_of_the_dead(entry)
    end
end
return {recovered, page[1]}
