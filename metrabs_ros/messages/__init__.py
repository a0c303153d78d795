"""What ROS messages say, for those that came over DDS and those in recordings; without ROS."""
