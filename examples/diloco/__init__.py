"""A small transformer trained by four processes: data parallelism against DiLoCo, loss by bytes sent."""
