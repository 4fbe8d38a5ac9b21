// What one request of a warp costs the memory of a GPU.  Global memory is read and written in sectors of 32
// bytes.  Shared memory has 32 banks, four bytes wide, that each serve one word at a time.
//
// Lanes of a warp that ask for 4 bytes or fewer are served together.  Where each asks for 8, the two halves
// of the warp come one after the other, and where each asks for 16, its four quarters.  Two neighbouring
// groups of lanes are served at once if that meets no conflict, for example where all read the same word.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace emulation {

constexpr int sector_bytes = 32, banks = 32, word_bytes = 4;

struct WarpRequest {
    std::uint32_t lanes = 0;     // a bit for each lane that takes part
    std::uintptr_t address[32];  // of each of these lanes
    std::size_t bytes = 0;       // that each of them asks for

    // The numbers of the units that lanes of the mask touch, each once: of sectors, words or bytes.
    std::vector<std::uintptr_t> touched(std::uintptr_t unit, std::uint32_t mask = ~0u) const {
        std::vector<std::uintptr_t> found;
        for (int lane = 0; lane < 32; ++lane) {
            if (!(lanes & mask) || !((lanes & mask) >> lane & 1)) continue;
            const std::uintptr_t last = (address[lane] + bytes - 1) / unit;
            for (std::uintptr_t i = address[lane] / unit; i <= last; ++i) found.push_back(i);
        }
        std::sort(found.begin(), found.end());
        found.erase(std::unique(found.begin(), found.end()), found.end());
        return found;
    }

    // The least number of sectors that hold as many bytes.
    std::size_t least_sectors() const { return (touched(1).size() + sector_bytes - 1) / sector_bytes; }

    // How often the busiest bank is asked for another word, by the lanes of the mask.
    int busiest_bank(std::uint32_t mask) const {
        int words[banks] = {}, most = 0;
        for (const std::uintptr_t word : touched(word_bytes, mask)) {
            most = std::max(most, ++words[word % banks]);
        }
        return most;
    }

    struct Turns {
        int all = 0, conflicts = 0;  // the conflicts are turns more than one for a group of lanes
    };

    // In how many turns the banks serve the request.
    Turns turns() const {
        const int group = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8;
        const auto mask = [&](int first, int count) {
            return std::uint32_t(((std::uint64_t{1} << count) - 1) << first);
        };
        Turns turns;
        for (int first = 0; first < 32; first += 2 * group) {
            const int low = busiest_bank(mask(first, group));
            const int high = group < 32 ? busiest_bank(mask(first + group, group)) : 0;
            turns.conflicts += std::max(low - 1, 0) + std::max(high - 1, 0);
            const bool together = group < 32 && busiest_bank(mask(first, 2 * group)) == 1;
            turns.all += together ? 1 : low + high;
        }
        return turns;
    }
};

}  // namespace emulation
