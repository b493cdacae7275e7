-- Prolongs claims that still hold.
--
-- ARGV  8 seconds that a claim lives, from 9 on, for each job: id · execution
-- Gives the executions whose claim was lost.
local life = tonumber(ARGV[8])
local lost = {}

-- Gives whether the claim still holds.
local function renew(id, execution)
    if not holds(id, execution) then
        return false
    end
    local entry = entry_of(id, execution)
    redis.call('EXPIRE', EXECUTIONS .. id, life * 2)  -- first: see `settle.lua`
    redis.call('ZADD', CLAIMS, 'XX', now + life, entry)
    if redis.call('EXPIRE', EXECUTION .. entry, life * 2) == 1 then
        redis.call('HSET', EXECUTION .. entry, 'last_heartbeat', seconds(now))
    end
    return true
end

for position = 9, #ARGV, 2 do
    local id, execution = ARGV[position], ARGV[position + 1]
    -- What cannot be looked at counts as lost; its settlement tells the fault.
    local is_done, is_held = attempt(id, renew, id, execution)
    if not is_done or not is_held then
        lost[#lost + 1] = execution
    end
end
return lost
