"""An estimate of the energy that a training takes."""

import logging
import os
from types import TracebackType

from trainer.contract import ENERGY_FACTOR

COUNTRY_VARIABLE = "MOODIFY_COUNTRY"
COUNTED, RECKONED = 1.3, 2.0
"""By what factor an estimate may be off, either way: with the processor's counters, which leave out power supply, board
and disks; and from nominal power and load alone."""
WORLD_AVERAGE_G_PER_KWH = 475.0  # International Energy Agency, as codecarbon has it


def check_country() -> None:
    """Raises ValueError where `MOODIFY_COUNTRY` names no country: codecarbon would go on with another mix."""
    if country := os.environ.get(COUNTRY_VARIABLE):
        from codecarbon.input import DataSource

        if country not in DataSource().get_global_energy_mix_data():
            raise ValueError(f"{COUNTRY_VARIABLE}={country}: take the three letters of ISO 3166, such as DEU")


class EnergyMeter:
    """codecarbon's offline tracker over a `with` block; it asks no host and writes no file.

    An estimate: where the processor's counters cannot be read, codecarbon reckons with the processor's
    nominal power and load. CO2 follows the electricity mix of `MOODIFY_COUNTRY` (ISO 3166 alpha-3).
    """

    def __init__(self) -> None:
        logging.getLogger("codecarbon").disabled = True  # it sets its own level when it starts
        from codecarbon import OfflineEmissionsTracker

        self.country = os.environ.get(COUNTRY_VARIABLE, "")
        self._tracker = OfflineEmissionsTracker(
            country_iso_code=self.country or "USA",  # it wants one; a given intensity overrides it
            force_carbon_intensity_g_co2e_kwh=None if self.country else WORLD_AVERAGE_G_PER_KWH,
            output_methods=[],
            log_level="critical",
            allow_multiple_runs=True,
        )

    def __enter__(self) -> "EnergyMeter":
        self._tracker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracker.stop()

    def metrics(self) -> dict[str, float]:
        """After the block: estimated energy in kWh and CO2 equivalents in kg."""
        data = self._tracker.final_emissions_data
        return {
            "energy/estimated_kwh": data.energy_consumed,
            "energy/estimated_co2_kg": data.emissions,
            ENERGY_FACTOR: COUNTED if self._counted() else RECKONED,
        }

    def method(self) -> str:
        """After the block: where the figures come from."""
        power = (
            "the processor's own counters" if self._counted() else "the processor's nominal power and load"
        )
        mix = (
            f"the mix of {self.country}"
            if self.country
            else f"the world's average of {WORLD_AVERAGE_G_PER_KWH:.0f} g CO2/kWh"
        )
        return f"codecarbon, the whole machine, from {power}; {mix}"

    def _counted(self) -> bool:
        parts = [repr(part) for part in getattr(self._tracker, "_hardware", [])]
        return any("Rapl" in part or "Gadget" in part or "Emi" in part for part in parts)
