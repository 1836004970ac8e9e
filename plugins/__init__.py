"""The built-in plugins: each one small file that uses nothing but `pov_rt.plugin`."""
